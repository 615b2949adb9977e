/**
 * Debian's newer kernel with indirect branch tracking in the kernel and shadow stacks for programs. Its own words, and SEGV_CPERR (10) of
 * Linux's signal ABI, are what is expected.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { compile, initramfs, shellInit } from '../../tools/debian/initramfs.ts'
import { kernelOfSeries } from '../../tools/debian/packages.ts'
import { runCommand } from './linux.ts'

test('Linux tracks its branches, and a program\'s shadow stack finds a spoiled return address', () => {
  const disk = initramfs({ init: shellInit, programs: [compile(fileURLToPath(new URL('bench/shstk.c', import.meta.url)))] })
  const args = ['--kernel', kernelOfSeries('6.12').image, '--cpu', 'SapphireRapids', '--memory', '512M', '--append', 'console=ttyS0 quiet']
  const typed = ['dmesg | grep CET', 'grep -o -m1 user_shstk /proc/cpuinfo', 'shstk', 'poweroff -f', ''].join('\n')
  const { status, ending, errors, console } = runCommand(args, typed, disk)
  assert.deepEqual([status, ending], [0, 'power-off'], errors + console.slice(-2000))
  assert.match(console, /CET detected: Indirect Branch Tracking enabled/)
  assert.match(console, /^user_shstk$/m)
  assert.match(console, /shstk: pointer set, factorial 2432902008176640000, signals 100, forks 0, spoiled 10$/m)
  assert.doesNotMatch(console, /Missing ENDBR|WARNING|BUG:|Oops/)
})
