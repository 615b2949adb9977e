/**
 * What remapping costs a device: DMA and interrupts by its ports, straight and through a unit with warm caches; medians
 * of many short rounds, of which each does both, for a busy machine is as slow for the one as for the other.
 */
import { defaultUnit } from '../../src/iommu/capabilities.ts'
import { command, offsets } from '../../src/iommu/registers.ts'
import { RemappedDma, RemappedMsi } from '../../src/iommu/requester.ts'
import { RemappingUnit } from '../../src/iommu/unit.ts'
import { VitrineMachine } from '../../src/machine.ts'

const MiB = 1 << 20
const device = 0x18
const pages = 512
const rounds = 120
const data = 32 * MiB
const place = { root: MiB, context: MiB + 0x1000, tables: 2 * MiB, interrupts: 3 * MiB }

const machine = new VitrineMachine({ raw: { image: new Uint8Array(16), at: 0x7c00, mode: 'real16' }, memory: 64 * MiB, chipset: 'q35' })
const { physical } = machine.core
const { apicBus } = machine.pc
function quad(address: number, value: bigint): void {
  const bytes = new Uint8Array(8)
  new DataView(bytes.buffer).setBigUint64(0, value, true)
  physical.write(address, bytes)
}

/** Scattered pages, as buffers of an operating system are. */
function makeTables(): void {
  quad(place.root, BigInt(place.context | 1))
  quad(place.context + device * 16, BigInt(place.tables | 1))
  quad(place.context + device * 16 + 8, 0x102n)
  for (let level = 0; level < 3; level++) quad(place.tables + level * 4096, BigInt(place.tables + (level + 1) * 4096 + 3))
  for (let page = 0; page < pages; page++) quad(place.tables + 3 * 4096 + page * 8, BigInt(data + ((page * 7) % pages) * 4096 + 3))
  quad(place.interrupts + 5 * 16, 0x51_0001n)
  quad(place.interrupts + 5 * 16 + 8, BigInt(device) | (1n << 18n))
}

const unit = new RemappingUnit({
  name: 'unit', options: { ...defaultUnit, scalableMode: false }, log: (_, what) => console.log(what),
  ports: {
    memory: physical, deliver: message => apicBus.deliver(message), message: (address, value) => apicBus.msi.signal(address, value),
  },
})
makeTables()
for (const [offset, value] of [
  [offsets.rootTable, place.root], [offsets.interruptTable, place.interrupts | 7], [offsets.command, command.setRootTable],
  [offsets.command, command.setInterruptTable], [offsets.command, command.translation | command.interruptRemapping],
]) unit.writeMmio(offset, 4, value >>> 0)

const requester = { requester: () => device, unitFor: () => unit, memory: physical }
const message = new RemappedMsi({ ...requester, checksSource: true })
const remapped = { dma: new RemappedDma(requester), msi: message, base: 0, message: 0xfee0_00b0 }
const straight = { dma: physical, msi: apicBus.msi, base: data, message: 0xfee0_0000 }
type Ports = typeof remapped | typeof straight

const transfer = (size: number) => {
  const bytes = new Uint8Array(size)
  return ({ dma, base }: Ports, turn: number): void => {
    const address = base + (turn * Math.max(size, 4096)) % (pages * 4096)
    if (dma.read(address, bytes) !== 'ok') throw new Error('the transfer was refused')
  }
}
const [entry, block, completion] = [64, 4096, 16].map(size => new Uint8Array(size))

/** What an NVMe controller does for a read of 4 KiB: fetch the command, write the data and the completion, send a message. */
function request({ dma, msi, base, message: to }: Ports, turn: number): void {
  dma.read(base + (turn * 64) % 4096, entry)
  dma.write(base + 8192 + (turn % 256) * 4096, block)
  dma.write(base + 4096 + (turn * 16) % 4096, completion)
  msi.signal(to, 0x51)
}

const works: [name: string, turns: number, work: (ports: Ports, turn: number) => void][] = [
  ['16 bytes', 300_000, transfer(16)], ['512 bytes', 300_000, transfer(512)], ['4 KiB', 200_000, transfer(4096)],
  ['64 KiB', 20_000, transfer(65536)], ['interrupt', 500_000, ({ msi, message: to }) => msi.signal(to, 0x51)],
  ['request of 4 KiB', 150_000, request],
]

function time(work: (ports: Ports, turn: number) => void, ports: Ports, turns: number): number {
  const start = process.hrtime.bigint()
  for (let turn = 0; turn < turns; turn++) work(ports, turn)
  return Number(process.hrtime.bigint() - start) / turns
}

const median = (values: number[]): number => values.sort((a, b) => a - b)[values.length >> 1]

for (const [name, turns, work] of works) {
  const times = Array.from({ length: rounds }, () => [time(work, straight, turns / 10), time(work, remapped, turns / 10)])
  const [a, b] = [0, 1].map(side => median(times.map(round => round[side])).toFixed(0).padStart(6))
  const ratio = median(times.map(([before, through]) => before / through))
  console.log(`${name.padEnd(18)} straight ${a} ns, remapped ${b} ns: ${ratio.toFixed(2)}`)
}
