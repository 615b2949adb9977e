/** Linux on a processor with AVX2: its RAID and cryptographic code measures and tests itself, in 256-bit registers. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { initramfs } from '../../tools/debian/initramfs.ts'
import { debianKernel, moduleFiles } from '../../tools/debian/packages.ts'
import { kernelFile, runCommand } from './linux.ts'

/** Signatures of modules, which are not wanted here, are half of a boot. */
const quick = 'console=ttyS0 quiet initcall_blacklist=load_system_certificate_list,load_revocation_certificate_list'
const init = `#!/bin/sh
mount -t proc proc /proc; mount -t devtmpfs dev /dev
for module in $(cat /mod/order); do insmod /mod/$module; done
dmesg | grep -E 'raid6: using|XSAVE feature 0x004'
grep -E '^(driver|selftest)' /proc/crypto | paste - - | grep -E 'avx|aesni' | sed 's/^/@@ /'
poweroff -f
`

test('Haswell: AVX state, RAID-6 with AVX2, and ciphers whose own tests pass', () => {
  const modules = moduleFiles(debianKernel('cloud'), ['raid6_pq', 'aesni_intel', 'serpent_avx2', 'camellia_aesni_avx2', 'nhpoly1305_avx2'])
  const args = ['--cpu', 'Haswell', '--memory', '512M', '--kernel', kernelFile('cloud'), '--append', quick]
  const { status, console, errors } = runCommand(args, '', initramfs({ init, modules }))
  assert.equal(status, 0, errors + console.slice(-2000))
  assert.match(console, /XSAVE feature 0x004: 'AVX registers'/)
  assert.match(console, /raid6: using algorithm avx2x\d gen[^]*raid6: using avx2x\d recovery algorithm/)
  const drivers = console.split('\n').filter(line => line.startsWith('@@ '))
  for (const name of ['ecb-serpent-avx2', 'cbc-camellia-aesni-avx2', 'generic-gcm-aesni', 'nhpoly1305-avx2'])
    assert.ok(drivers.some(line => line.includes(name)), `${name} is missing in:\n${drivers.join('\n')}`)
  assert.deepEqual(drivers.filter(line => !/selftest\s*: passed/.test(line)), [])
})
