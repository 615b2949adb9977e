/**
 * Corners of the processor that kernels and debuggers count on, from a program on Debian's cloud kernel. What it prints was seen on silicon
 * of AMD; Intel SDM vol. 2, "IRET", and vol. 3, "Debug Exceptions", say the same.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { compile, initramfs, shellInit } from '../../tools/debian/initramfs.ts'
import { kernelFile, runCommand } from './linux.ts'

/** Signatures of modules, which are not wanted here, are half of a boot. */
const quick = 'console=ttyS0 quiet initcall_blacklist=load_system_certificate_list,load_revocation_certificate_list'

for (const cpu of ['intel', 'amd'])
  test(`${cpu}: null selectors come back as 0, MOV SS puts a breakpoint off, and one exception tells of two`, () => {
    const disk = initramfs({ init: shellInit, programs: [compile(fileURLToPath(new URL('bench/corners.c', import.meta.url)))] })
    const args = ['--kernel', kernelFile('cloud'), '--cpu', cpu, '--memory', '256M', '--append', quick, '--max-instructions', '3000000000']
    const { status, errors, console } = runCommand(args, 'corners\npoweroff -f\n', disk)
    assert.match(console, /^corners: selectors 00, status 0, traps 1 1, call right$/m, errors + console.slice(-2000))
    assert.equal(status, 0)
  })
