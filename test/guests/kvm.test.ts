/**
 * Debian's KVM, unmodified, with a guest of its own inside our guest: world switches, nested paging and interrupts, for
 * minutes of work.
 */
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { test } from 'node:test'
import { compile, initramfs, shellInit } from '../../tools/debian/initramfs.ts'
import { debianKernel, moduleFiles } from '../../tools/debian/packages.ts'
import { kernelFile, runCommand } from './linux.ts'

const source = join(fileURLToPath(new URL('.', import.meta.url)), 'bench/knest.c')
const exits = 5000
/** A loop of four instructions that adds 3, a thousand million instructions long. */
const computed = (3 * 250_000_000).toString(16)

/** By vendor: the module, and what the kernel's log says of it. */
const vendors: readonly (readonly [cpu: string, module: string])[] = [['intel', 'kvm-intel'], ['amd', 'kvm-amd']]

for (const [cpu, module] of vendors)
  test(`${cpu}: ${module} loads, and its guest does its work`, () => {
    const modules = moduleFiles(debianKernel('cloud'), ['irqbypass', 'kvm', module])
    const disk = initramfs({ init: shellInit, programs: [compile(source)], modules })
    const typed = `knest ${exits}; echo status=$?\npoweroff -f\n`
    const args = ['--cpu', cpu, '--memory', '1G', '--kernel', kernelFile('cloud'), '--append', 'console=ttyS0 mitigations=off']
    const { status, ending, console, errors } = runCommand(args, typed, disk)
    assert.deepEqual([status, ending], [0, 'power-off'], errors + console.slice(-2000))
    assert.match(console, /status=0/)
    assert.match(console, new RegExp(`@@END kvm_exits .*io=${exits} rax=${(exits & 0xff).toString(16)} `))
    assert.match(console, new RegExp(`@@END kvm_compute .*rax=${computed} `))
    for (const phase of ['kvm_mem_first', 'kvm_mem', 'kvm_mem_wide']) assert.match(console, new RegExp(`@@END ${phase} `))
  })
