/**
 * Debian's kernel as a guest of our hypervisor: two at a time on two processors, while their vCPUs are sent to and fro (on Intel's the
 * first one owns a disk of the machine; on AMD's twice, with the same run); and with shadow paging, where its programs come to the same.
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
const digestOf = (bytes: Uint8Array | string): string => createHash('md5').update(bytes).digest('hex')
const sumOfSquares = Array.from({ length: 3000 }, (_, i) => (i + 1) ** 2).reduce((sum, square) => sum + square, 0)
const sorted = Array.from({ length: 2000 }, (_, i) => `${2000 - i}\n`).join('')
const disk = Uint8Array.from({ length: 1 << 20 }, (_, i) => (i * 2654435761) >>> 24)

/** What the guests are told to do, and what a program that anybody has would print. */
const work = [
  "seq 1 3000 | awk '{ s += $1 * $1 } END { printf \"%.0f\\n\", s }'",
  'seq 1 2000 | sort -rn | gzip -c | gunzip | md5sum',
  'i=0; while [ $i -lt 10 ]; do /bin/true && i=$((i+1)); done; echo $i programs',
]
const expected = [String(sumOfSquares), `${digestOf(sorted)}  -`, '10 programs']

interface Report {
  readonly guests: readonly { ending: string; console: string; vcpus: readonly { migrations: number }[] }[]
}

/** Runs the kernel and answers with the report. The lines are typed, or lie in the initial RAM disk: then nothing comes from outside. */
function run(how: 'typed' | 'inside', lines: readonly string[], ...options: string[]): Report {
  const folder = mkdtempSync(join(tmpdir(), 'vitrine-vmm-'))
  const text = [...lines, 'poweroff -f', ''].join('\n')
  try {
    const initrd = join(folder, 'initrd')
    writeFileSync(initrd, initramfs({ init: how === 'typed' ? shellInit : `${shellInit.replace(/^exec .*/m, '')}${text}` }))
    const image = join(folder, 'disk')
    writeFileSync(image, disk)
    const { status, stdout, stderr } = spawnSync(process.execPath, [
      vitrine, 'vmm', '--json', '--kernel', kernelFile('cloud'), '--initrd', initrd, '--timeout', '550',
      ...options.map(option => option.replace('DISK', image)),
    ], { input: how === 'typed' ? text : '', encoding: 'utf8', maxBuffer: 1 << 24 })
    assert.equal(status, 0, stderr + stdout)
    return JSON.parse(stdout) as Report
  } finally {
    rmSync(folder, { recursive: true })
  }
}
/** The lines that programs have printed, without those that were typed. */
const printed = (console: string): string[] => console.replaceAll('\r', '').split('\n').filter(line => !line.includes('# '))

for (const [cpu, guests, vcpus] of [['intel', 2, 1], ['amd', 1, 2]] as const) {
  test(`${guests} of Debian's kernels with ${vcpus} vCPUs each, migrated, ${cpu}`, () => {
    const options = ['--cpu', cpu, '--guests', String(guests), '--vcpus', String(vcpus), '--cpus', '2', '--migrate', '4000',
      '--memory', '192M', ...(cpu === 'intel' ? ['--assign', 'nvme=DISK'] : [])]
    const report = run('inside', [...work, 'nproc', 'md5sum /dev/nvme0n1'], ...options)
    assert.equal(report.guests.length, guests)
    for (const [i, { ending, console }] of report.guests.entries()) {
      assert.equal(ending, 'power-off')
      const lines = printed(console)
      for (const each of [...expected, String(vcpus)]) assert.ok(lines.includes(each), `${each} is not in ${console}`)
      assert.equal(lines.some(line => line.startsWith(digestOf(disk))), cpu === 'intel' && i === 0, console)
    }
    const moves = report.guests.flatMap(each => each.vcpus).reduce((sum, { migrations }) => sum + migrations, 0)
    assert.ok(moves >= 100, `${moves} migrations`)
    // counts of instructions and exits, times, hashes of memory
    if (cpu === 'amd') assert.deepEqual(run('inside', [...work, 'nproc', 'md5sum /dev/nvme0n1'], ...options), report)
  })

  test(`Debian's kernel with shadow paging comes to the same, ${cpu}`, () => {
    const [{ ending, console }] = run('typed', work, '--cpu', cpu, '--cpus', '1', '--memory', '128M', '--paging', 'shadow').guests
    assert.equal(ending, 'power-off')
    const lines = printed(console)
    for (const each of expected) assert.ok(lines.includes(each), `${each} is not in ${console}`)
  })
}
