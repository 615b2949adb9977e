/**
 * Debian's kernel as a guest of our hypervisor, two at a time on two processors, while their vCPUs are sent to and fro; on Intel's the
 * first one owns a disk of the machine.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { initramfs, shellInit } from '../../tools/debian/initramfs.ts'
import { kernelFile } from '../guests/linux.ts'

const vitrine = fileURLToPath(new URL('../../bin/vitrine.js', import.meta.url))
const sumOfSquares = Array.from({ length: 3000 }, (_, i) => (i + 1) ** 2).reduce((sum, square) => sum + square, 0)
const disk = Uint8Array.from({ length: 1 << 20 }, (_, i) => (i * 2654435761) >>> 24)
const digest = createHash('md5').update(disk).digest('hex')
const typed = "seq 1 3000 | awk '{ s += $1 * $1 } END { printf \"%.0f\\n\", s }'\nnproc\nmd5sum /dev/nvme0n1\npoweroff -f\n"

for (const [cpu, guests, vcpus] of [['intel', 2, 1], ['amd', 1, 2]] as const) {
  test(`${guests} of Debian's kernels with ${vcpus} vCPUs each, migrated, ${cpu}`, () => {
    const folder = mkdtempSync(join(tmpdir(), 'vitrine-vmm-'))
    try {
      const initrd = join(folder, 'initrd')
      writeFileSync(initrd, initramfs({ init: shellInit }))
      const image = join(folder, 'disk')
      writeFileSync(image, disk)
      const { status, stdout, stderr } = spawnSync(process.execPath, [
        vitrine, 'vmm', '--cpu', cpu, '--guests', String(guests), '--vcpus', String(vcpus), '--cpus', '2', '--migrate', '4000',
        '--kernel', kernelFile('cloud'), '--initrd', initrd, '--memory', '192M', '--timeout', '400',
        ...(cpu === 'intel' ? ['--assign', `nvme=${image}`] : []),
      ], { input: typed, encoding: 'utf8', maxBuffer: 1 << 24 })
      assert.equal(status, 0, stderr + stdout)
      const lines = stdout.replaceAll('\r', '').split('\n').map(line => line.replace(/^guest\d \| /, ''))
      assert.equal(lines.filter(line => line === String(sumOfSquares)).length, guests, stdout)
      assert.equal(lines.filter(line => line === String(vcpus)).length, guests, stdout)
      assert.equal(lines.filter(line => line.startsWith(digest)).length, cpu === 'intel' ? 1 : 0, stdout)
      assert.equal([...stderr.matchAll(/: power-off;/g)].length, guests, stderr)
      const moves = [...stderr.matchAll(/(\d+) moves/g)].reduce((sum, [, count]) => sum + Number(count), 0)
      assert.ok(moves >= 100, `${moves} migrations`)
    } finally {
      rmSync(folder, { recursive: true })
    }
  })
}
