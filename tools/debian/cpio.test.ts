/** Archives of ours, unpacked by cpio itself. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { test } from 'node:test'
import { cpio } from './cpio.ts'

function list(archive: Uint8Array): string[] {
  const env = { ...process.env, TZ: 'UTC', LC_ALL: 'C' }
  return execFileSync('cpio', ['-t', '-v', '--numeric-uid-gid', '--quiet'], { input: archive, encoding: 'utf8', env }).trimEnd().split('\n')
}

test('cpio lists what was put in', () => {
  const lines = list(cpio([
    { path: 'bin', kind: 'folder' },
    { path: 'bin/one', kind: 'file', data: new TextEncoder().encode('x'), mode: 0o755 },
    { path: 'bin/three', kind: 'file', data: new TextEncoder().encode('xyz') },
    { path: 'bin/link', kind: 'link', target: 'three' },
    { path: 'console', kind: 'device', mode: 0o600, major: 5, minor: 1 },
  ])).map(line => line.replace(/Jan +1 +1970/, 'T').replace(/ +/g, ' '))
  assert.deepEqual(lines, [
    'drwxr-xr-x 2 0 0 0 T bin',
    '-rwxr-xr-x 1 0 0 1 T bin/one',
    '-rw-r--r-- 1 0 0 3 T bin/three',
    'lrwxrwxrwx 1 0 0 5 T bin/link -> three',
    'crw------- 1 0 0 5, 1 T console',
  ])
})

test('contents come back', () => {
  const text = 'line of text\n'.repeat(1000)
  const archive = cpio([{ path: 'file', kind: 'file', data: new TextEncoder().encode(text) }])
  assert.equal(execFileSync('cpio', ['-i', '--to-stdout', '--quiet', 'file'], { input: archive, encoding: 'utf8' }), text)
})
