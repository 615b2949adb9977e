/**
 * Takes the processors over: the hypervisor's tables into memory, the first processor onto them, the others started by INIT and SIPI. Intel
 * SDM vol. 3, "Multiple-Processor (MP) Initialization".
 */
import { pageSize, place, processorPlaces, selector, slotSize } from './layout.ts'
import { register, type HardwarePort } from './port.ts'
import { Processor } from './processor.ts'
import { codePage, handlerPage, trampoline, trampolineInstructions, addressOf } from './root-code.ts'

const flatCode32 = 0x00cf9b000000ffffn
const code64 = 0x00af9b000000ffffn
const data = 0x00cf93000000ffffn
const tssLimit = 0x67
const paging = { pml4Entry: 7n, large: 0x83n, largeUncached: 0x9bn }
const gigabyte = 2 ** 30
const largePage = 2 ** 21
const osfxsr = 0x600n
const osxsave = 1n << 18n
const featureXsave = 1 << 26

/** A TSS descriptor of 16 bytes. Intel SDM vol. 3, "TSS Descriptor in 64-bit mode". */
function tssDescriptor(base: number): [bigint, bigint] {
  const address = BigInt(base)
  const low = BigInt(tssLimit) | ((address & 0xffffffn) << 16n) | (0x89n << 40n) | (((address >> 24n) & 0xffn) << 56n)
  return [low, address >> 32n]
}

/** An interrupt gate to a handler. Intel SDM vol. 3, "64-Bit Mode IDT". */
function gate(vector: number): [bigint, bigint] {
  const address = BigInt(place.handlers + vector * slotSize)
  const low = (address & 0xffffn) | (BigInt(selector.code) << 16n) | (0x8en << 40n) | (((address >> 16n) & 0xffffn) << 48n)
  return [low, address >> 32n]
}

const gdtLimit = (processors: number): number => selector.firstTss + processors * 16 - 1

function writeTables(hardware: HardwarePort): void {
  const { memory } = hardware
  const quads = (address: number, values: readonly bigint[]): void =>
    values.forEach((value, i) => memory.write64(address + i * 8, value))
  const descriptors = hardware.processors.flatMap(({ index }) => tssDescriptor(processorPlaces(index).tss))
  quads(place.gdt, [0n, flatCode32, code64, data, ...descriptors])
  for (let vector = 0; vector < 256; vector++) quads(place.idt + vector * 16, gate(vector))
  memory.write(place.handlers, handlerPage())
  memory.write(place.code, codePage())
  memory.write(place.trampoline, trampoline(gdtLimit(hardware.processors.length)))
  const pointers = place.pageTables + pageSize
  memory.write64(place.pageTables, BigInt(pointers) | paging.pml4Entry)
  for (let i = 0; i < 4; i++) {
    const directory = pointers + (i + 1) * pageSize
    memory.write64(pointers + i * 8, BigInt(directory) | paging.pml4Entry)
    for (let j = 0; j < 512; j++) {
      const address = i * gigabyte + j * largePage
      const isApic = address <= hardware.apicBase && hardware.apicBase < address + largePage
      memory.write64(directory + j * 8, BigInt(address) | (isApic ? paging.largeUncached : paging.large))
    }
  }
}

/** GDT, IDT, TSS, stack and segments of a processor in 64-bit mode that runs on the hypervisor's page tables. */
function takeOver(processor: Processor, processors: number): void {
  const { port, hardware, places } = processor
  const pointer = (address: number, limit: number): bigint =>
    processor.operand(BigInt(limit) | ((BigInt(address) & 0xffffffffffffn) << 16n), BigInt(address) >> 48n)
  port.set(register.rsp, BigInt(places.stackTop))
  processor.perform('writeCr3', BigInt(place.pageTables))
  processor.perform('lgdt', pointer(place.gdt, gdtLimit(processors)))
  processor.perform('lidt', pointer(place.idt, 256 * 16 - 1))
  for (const load of ['loadData', 'loadExtra', 'loadStack'] as const) processor.perform(load, BigInt(selector.data))
  hardware.memory.write64(places.stackTop - 16, addressOf.nop)
  hardware.memory.write64(places.stackTop - 8, BigInt(selector.code))
  port.set(register.rsp, BigInt(places.stackTop - 16))
  processor.perform('loadCode')
  processor.perform('ltr', BigInt(selector.firstTss + processor.index * 16))
  processor.perform('writeCr0', 0x80000031n)
  processor.perform('readCr4')
  const xsave = processor.cpuid(1).ecx & featureXsave ? osxsave : 0n
  processor.perform('writeCr4', 0x20n | osfxsr | xsave)
  processor.enableApic()
}

/** Virtual nanoseconds between INIT and SIPI, and for a processor to start. */
const initTime = 10_000
const startupTime = 100_000

/** The first processor halts until its timer ends. */
function sleep(first: Processor, nanoseconds: number): void {
  first.setTimer(nanoseconds)
  first.halt()
  expectArrival(first.hardware, first)
  first.awake()
}
function expectArrival(hardware: HardwarePort, processor: Processor): void {
  const arrival = hardware.run(hardware.now + 10 * startupTime)
  if (arrival.kind !== 'root' || arrival.cpu !== processor.index)
    throw new Error(`expected processor ${processor.index} in root mode, found ${JSON.stringify(arrival)}`)
}

/** Answers with the other one in 64-bit mode, behind the trampoline. */
function start(first: Processor, other: Processor): void {
  first.sendInit(other.index)
  sleep(first, initTime)
  first.sendStartup(other.index, place.trampoline)
  first.setTimer(startupTime)
  first.halt()
  expectArrival(first.hardware, other)
  other.port.execute(0n, trampolineInstructions)
  if (other.port.rip !== BigInt(place.code))
    throw new Error(`processor ${other.index} left its trampoline at ${other.port.rip.toString(16)}`)
}

/**
 * All processors of the machine, in the hypervisor's hands: the first one in root mode with interrupts held back, the others halted until
 * they are sent an interrupt. `prepare` is called while a processor stands in root mode.
 */
export function bringUp(hardware: HardwarePort, prepare: (processor: Processor) => void): Processor[] {
  writeTables(hardware)
  const processors = hardware.processors.map(port => new Processor(hardware, port))
  const [first, ...others] = processors
  takeOver(first, processors.length)
  for (const other of others) {
    start(first, other)
    takeOver(other, processors.length)
    prepare(other)
    other.halt()
    expectArrival(hardware, first)
    first.awake()
  }
  prepare(first)
  return processors
}
