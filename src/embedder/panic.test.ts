/** Panic messages as Linux prints them (kernel/panic.c). */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { PanicWatch } from './panic.ts'

const seen = (...texts: string[]): string | undefined => {
  const watch = new PanicWatch()
  for (const text of texts) watch.see(new TextEncoder().encode(text))
  return watch.panic
}

test('a panic is found across pieces', () => {
  assert.equal(seen('[ 1.0] Kernel pan', 'ic - not syncing: VFS: Unable to mount root fs\r\n[ 1.1] CPU: 0\r\n'),
    'Kernel panic - not syncing: VFS: Unable to mount root fs')
})

test('ordinary output is none, and a panic of a nested guest is forgotten when the machine restarts in order', () => {
  assert.equal(seen('Linux version 6.1\r\nall is well\r\n'), undefined)
  assert.equal(seen('Kernel panic - not syncing: x\r\n', '[ 9.0] reboot: Restarting system\r\n'), undefined)
})

test('a kernel that stays where it panicked says so in its last line', () => {
  const watch = new PanicWatch()
  const see = (text: string): void => watch.see(new TextEncoder().encode(text))
  see('[ 1.0] Kernel panic - not syncing: No working init found.\r\n[ 1.1] Kernel Offset: disabled\r\n')
  assert.equal(watch.stuck, false)
  see('[ 1.1] ---[ end Kernel panic - not syncing: No working init found. ]---\r\n')
  assert.equal(watch.stuck, true)
  assert.equal(watch.panic, 'Kernel panic - not syncing: No working init found.')
})
