/** Runs the kernel of guest.S with a list on Vitrine and on QEMU, each with a remapping unit and the `edu` device at 00:03.0. */
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { createMachine } from '../../src/machine.ts'
import { compileKernel } from '../debian/initramfs.ts'

export interface Unit {
  /** Where registers lie that a unit places itself: the fault records, the IOTLB's. */
  readonly records: number
  readonly recordCount: number
}
/** CAP.FRO and CAP.NFR. */
export const units = {
  vitrine: { records: 0x200, recordCount: 8 }, qemu: { records: 0x220, recordCount: 1 },
} as const satisfies Record<string, Unit>

const kernel = (): string => compileKernel(fileURLToPath(new URL('guest.S', import.meta.url)))
const wholeMask = '0xffffffffffffffff'
const MiB = 2 ** 20

export function onVitrine(list: Uint8Array, engine: 'jit' | 'interpreter' = 'jit'): string[] {
  const machine = createMachine({
    kernel: readFileSync(kernel()), modules: [{ bytes: list, name: 'list', arguments: '' }], memory: 64 * MiB, chipset: 'q35', engine,
    noReboot: true,
    iommus: [{ model: 'vtd', properties: { 'snoop-control': 'off', 'aw-bits': '48' } }],
    devices: [
      { name: 'edu', properties: { dma_mask: wholeMask, addr: '3' } }, { name: 'isa-debugcon', properties: { iobase: '0xe9' } },
      { name: 'isa-debug-exit', properties: { iobase: '0x501' } },
    ],
  })
  const bytes: number[] = []
  machine.onDebugOutput = byte => bytes.push(byte)
  const { kind } = machine.run({ maxInstructions: 20e9 })
  if (kind === 'budget') throw new Error('the list has not come to its end')
  return linesOf(Buffer.from(bytes).toString('latin1'))
}

/** Time is counted there, too: a wait of the device's 100 ms is some thousand turns of a loop. */
export function onQemu(list: Uint8Array, scalable = false, seconds = 250): string[] {
  const folder = mkdtempSync(join(tmpdir(), 'vitrine-iommu-'))
  try {
    const file = join(folder, 'list')
    writeFileSync(file, list)
    const args = [
      '-M', 'q35,kernel-irqchip=split', '-m', '64', '-nodefaults', '-display', 'none', '-no-reboot', '-icount', 'shift=10,sleep=off',
      '-device', `intel-iommu,intremap=on,aw-bits=48,x-scalable-mode=${scalable ? 'on' : 'off'}`,
      '-device', `edu,addr=3,dma_mask=${wholeMask}`,
      '-debugcon', 'stdio', '-device', 'isa-debug-exit,iobase=0x501', '-kernel', kernel(), '-initrd', file,
    ]
    const { status, stdout, stderr } = spawnSync('qemu-system-x86_64', args, { encoding: 'latin1', timeout: seconds * 1000 })
    if (status !== 1) throw new Error(`QEMU ended with ${status ?? `nothing within ${seconds} s`}: ${stderr}`)
    return linesOf(stdout)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

function linesOf(text: string): string[] {
  const lines = text.trimEnd().split('\n')
  if (lines.pop() !== 'E') throw new Error('the list has not come to its end')
  return lines.map(line => line.trim())
}
