/** What the guest tests share: Debian's kernels and a RAM disk around its busybox, by package name, and runs of the command. */
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { compile, initramfs, shellInit } from '../../tools/debian/initramfs.ts'
import { debianKernel, type Flavour, packageFolder } from '../../tools/debian/packages.ts'

const root = fileURLToPath(new URL('../../', import.meta.url))

export const kernelFile = (flavour: Flavour): string => debianKernel(flavour).image
export const busybox = (): Uint8Array => readFileSync(join(packageFolder('busybox-static'), 'bin/busybox'))

/** A shell on the console, with the benchmark programs beside it. */
export const shellDisk = (): Uint8Array => initramfs({ init: shellInit, programs: [compile(join(root, 'test/guests/bench/bench.c'))] })

export interface Outcome {
  status: number | null
  errors: string
  ending: string
  console: string
}

/** `vitrine run --json` on files in a folder of its own; `typed` is what the shell is told. */
export function runCommand(args: readonly string[], typed: string, disk: Uint8Array): Outcome {
  const folder = mkdtempSync(join(tmpdir(), 'vitrine-guest-'))
  try {
    const initrd = join(folder, 'initrd')
    writeFileSync(initrd, disk)
    const { status, stdout, stderr } = spawnSync(
      process.execPath, [join(root, 'bin/vitrine.js'), 'run', '--json', '--quiet', '--timeout', '400', '--initrd', initrd, ...args],
      { input: typed, encoding: 'utf8', maxBuffer: 1 << 26 },
    )
    const { ending, console } = (stdout === '' ? {} : JSON.parse(stdout)) as Record<string, string>
    return { status, errors: stderr, ending: ending ?? '', console: (console ?? '').replaceAll('\r', '') }
  } finally {
    rmSync(folder, { recursive: true })
  }
}
