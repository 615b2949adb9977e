/** Options of `vitrine vmm`: what is wrong is one line, and ends before anything runs. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { command } from './testing.ts'

const withKernel = ['--kernel', 'kernel']
const wrong: readonly (readonly [readonly string[], RegExp])[] = [
  [['--cpu', 'sparc'], /--cpu.*'sparc'.*intel, amd, both/],
  [['--cpus', '0'], /--cpus '0': expected a whole number from 1 to 8/],
  [['--seed', 'red'], /--seed 'red': expected a whole number/],
  [['--jsn'], /'--jsn'.*--json/],
  [['--guests', '2'], /--guests: expected --kernel beside it/],
  [['--migrate', '100'], /--migrate: expected --kernel beside it/],
  [['--assign', 'disk'], /--assign: expected edu, or with --kernel nvme=IMAGE, found 'disk'/],
  [['--assign', 'edu', '--cpu', 'amd'], /expected --cpu intel with --assign/],
  [['--kernel', 'nowhere'], /cannot read 'nowhere': no such file/],
  [[...withKernel, '--cpu', 'both'], /--cpu both: expected intel or amd with --kernel/],
  [[...withKernel, '--guests', '17'], /--guests '17': expected a whole number from 1 to 16/],
  [[...withKernel, '--vcpus', 'two'], /--vcpus 'two': expected a whole number from 1 to 8/],
  [[...withKernel, '--memory', '4G'], /expected at most 3072 MiB of memory in all, found 4160 MiB/],
  [[...withKernel, '--physical', '4M'], /--physical '4M': expected at least 16M/],
  [[...withKernel, '--paging', 'none'], /--paging.*'none'.*nested, shadow/],
  [[...withKernel, '--drive', 'nowhere'], /cannot open 'nowhere': no such file/],
  [[...withKernel, '--assign', 'edu'], /--assign: expected nvme=IMAGE for a guest with a kernel, found 'edu'/],
  [[...withKernel, '--assign', 'nvme=disk', '--paging', 'shadow'], /--assign: expected --paging nested/],
  [[...withKernel, '--assign', 'nvme=disk', '--reboot'], /--reboot: expected no --assign beside it/],
  [[...withKernel, '--net', 'ne2000'], /--net.*'ne2000'.*virtio, e1000/],
  [[...withKernel, '--migrate', '0'], /--migrate '0': expected a whole number from 1/],
]

for (const [options, line] of wrong) {
  test(`vitrine vmm ${options.join(' ')}`, async () => {
    const { status, output, errors } = await command(['vmm', ...options])
    assert.equal(status, 2, errors)
    assert.equal(output, '')
    assert.match(errors, line)
    assert.equal(errors.trimEnd().split('\n').length, 1)
  })
}
