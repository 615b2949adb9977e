/** A Debian system on a disk, two processors: systemd to a login on the serial port, a session, power-off, and the disk is whole. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import type { StopReason } from '../../src/api.ts'
import { openStore } from '../../src/embedder/node/file-store.ts'
import { createMachine } from '../../src/machine.ts'
import { rootFiles } from '../../tools/debian.ts'

const folder = mkdtempSync(join(tmpdir(), 'vitrine-root-'))
after(() => rmSync(folder, { recursive: true }))

/** What is awaited on the console, and what is typed then. */
const steps: readonly [awaited: RegExp, typed: string][] = [
  [/glass login: $/, 'root\n'],
  [/# $/, 'systemctl is-system-running; nproc; uname -r\n'],
  [/# $/, 'for i in $(seq 4); do mkdir -p /srv/$i; cp /usr/bin/perl /srv/$i; done; sha256sum /srv/*/perl | cut -c -64 | uniq -c\n'],
  [/# $/, 'perl -e \'print join(",", map { $_ * $_ } 1 .. 9), "\\n"\'; rm -r /srv/1\n'],
  [/# $/, 'poweroff 2>/dev/null\n'],
]

test('systemd to a login, a session, power-off, and e2fsck', () => {
  const { kernel, initrd, image } = rootFiles(folder)
  const machine = createMachine({
    cpus: 2, memory: 512 << 20, engine: 'jit', kernel: readFileSync(kernel), initrd: readFileSync(initrd),
    commandLine: 'console=ttyS0 quiet', drives: [{ id: 'root', store: openStore(image, false) }],
    devices: [{ name: 'virtio-blk-pci', properties: { drive: 'root' } }, { name: 'virtio-rng-pci', properties: {} }],
    // After the image was made, and not in the future, for the checks at the end.
    rtcEpoch: Math.floor(statSync(image).mtimeMs / 1000),
  })
  let console = ''
  let seen = 0
  machine.onSerialOutput = bytes => { console += Buffer.from(bytes).toString('latin1').replaceAll('\r', '').replaceAll('\x1b[?2004l', '') }
  machine.onLog = () => {}
  const left = [...steps]
  let stop: StopReason = { kind: 'time' }
  while (stop.kind === 'time' && machine.now < 300e9) {
    stop = machine.run({ untilTime: machine.now + 100_000_000 })
    if (left.length > 0 && left[0][0].test(console.slice(seen))) {
      seen = console.length
      machine.serialInput(Buffer.from(left.shift()![1]))
    }
  }
  assert.equal(stop.kind, 'power-off', console.slice(-2000))
  assert.match(console, /^running\n2\n6\.\d/m)
  assert.match(console, /^ +4 [0-9a-f]{64}$/m)
  assert.match(console, /^1,4,9,16,25,36,49,64,81$/m)
  assert.doesNotMatch(console, /\bFAILED\b|BUG:|WARNING:|soft lockup/)
  const check = spawnSync('e2fsck', ['-fn', image], { encoding: 'utf8' })
  assert.equal(check.status, 0, check.stdout + check.stderr)
})
