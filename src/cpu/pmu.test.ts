/**
 * Counters by privilege level, and the exact place of an overflow, on both vendors and in every engine. Expectations are the program's own
 * instructions, counted by hand. Intel SDM vol. 3, "Performance Monitoring"; AMD APM vol. 2, "Performance Monitoring Counters".
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { VitrineMachine } from '../machine.ts'
import { readMsr } from './msr.ts'

const place = { kernel: 0x100000, handler: 0x100800, program: 0x101000, nmi: 0x102000, gdt: 0x20000, idt: 0x21000, tss: 0x22000,
  tables: 0x30000, stack: 0x28000 } as const

const bytes = (value: bigint, count: number): number[] => Array.from({ length: count }, (_, i) => Number((value >> BigInt(8 * i)) & 0xffn))
const dword = (value: number): number[] => bytes(BigInt(value >>> 0), 4)
/** MOV ECX, MOV EAX, MOV EDX, WRMSR. */
const wrmsr = (index: number, value: bigint): number[] =>
  [0xb9, ...dword(index), 0xb8, ...bytes(value, 4), 0xba, ...bytes(value >> 32n, 4), 0x0f, 0x30]

const retired = 0xc0n
const enable = 1n << 22n
const interrupt = 1n << 20n
const user = 1n << 16n
const system = 1n << 17n

interface Vendor {
  readonly model: string
  readonly select: (i: number) => number
  readonly counter: (i: number) => number
  /** WRMSRs of which only the last one lets anything count, or stops it. */
  readonly start: number[]
  readonly stop: number[]
}
const vendors: readonly Vendor[] = [
  { model: 'intel', select: i => 0x186 + i, counter: i => 0x4c1 + i, start: wrmsr(0x38f, 3n), stop: wrmsr(0x38f, 0n) },
  { model: 'amd', select: i => 0xc0010200 + 2 * i, counter: i => 0xc0010201 + 2 * i,
    start: wrmsr(0xc0010202, enable | system | retired), stop: wrmsr(0xc0010202, 0n) },
]

/** So many that the loop is compiled. */
const rounds = 20_000

/** A program of system calls. Counter 0 counts what it executes, counter 1 what the kernel does. */
function machineOf({ model, select, counter, start, stop }: Vendor, engine: 'interpreter' | 'jit' | 'step', first: bigint): VitrineMachine {
  const kernel = [
    0xb8, ...dword(place.tables), 0x0f, 0x22, 0xd8, // mov cr3, rax
    0x0f, 0x01, 0x14, 0x25, ...dword(place.gdt + 0x80), // lgdt
    0x0f, 0x01, 0x1c, 0x25, ...dword(place.gdt + 0x90), // lidt
    0xb8, ...dword(0x28), 0x0f, 0x00, 0xd8, // ltr ax
    ...wrmsr(0x1b, 0xfee00d00n), ...wrmsr(0x80f, 0x1ffn), ...wrmsr(0x834, 0x400n), // x2APIC; overflows are NMIs
    ...wrmsr(0xc0000081, (0x10n << 48n) | (8n << 32n)), ...wrmsr(0xc0000082, BigInt(place.handler)), ...wrmsr(0xc0000084, 0n),
    ...wrmsr(0xc0000080, 0x501n),
    ...stop, ...wrmsr(counter(0), first), ...wrmsr(select(0), enable | user | retired | (first === 0n ? 0n : interrupt)),
    ...(model === 'intel' ? wrmsr(select(1), enable | system | retired) : []), ...start,
    0x31, 0xc0, 0xb9, ...dword(place.program), 0x41, 0xbb, ...dword(2), 0x48, 0x0f, 0x07, // xor eax, eax; mov ecx; mov r11d, 2; sysretq
  ]
  const program = [
    0x41, 0xbf, ...dword(rounds), // mov r15d, rounds
    0x90, 0x90, 0x0f, 0x05, 0x41, 0xff, 0xcf, 0x75, 0xf7, // nop; nop; syscall; dec r15d; jnz
    0xb8, ...dword(1), 0x0f, 0x05, // mov eax, 1; syscall
  ]
  const handler = [0x85, 0xc0, 0x75, 0x06, 0x48, 0xff, 0xc3, 0x48, 0x0f, 0x07, ...stop, 0xf4] // test; jnz; inc rbx; sysretq
  const image = new Uint8Array(0x3000)
  for (const [at, code] of [[place.kernel, kernel], [place.handler, handler], [place.program, program], [place.nmi, [0xf4]]] as const)
    image.set(code, at - place.kernel)
  const machine = new VitrineMachine({ raw: { image, at: place.kernel, mode: 'long64' }, memory: 4 << 20, cpu: { model }, engine })
  writeTables(machine)
  return machine
}

/** Everything is the program's to use, in pages of 2 MiB; flat segments; an interrupt gate for NMI and a stack for it. */
function writeTables(machine: VitrineMachine): void {
  const quads = (at: number, ...values: bigint[]): void => {
    machine.writePhysical(at, Uint8Array.from(values.flatMap(each => bytes(each, 8))))
  }
  quads(place.tables, BigInt(place.tables + 0x1000) | 7n)
  quads(place.tables + 0x1000, BigInt(place.tables + 0x2000) | 7n)
  quads(place.tables + 0x2000, 0x87n, 0x200087n)
  const tss = BigInt(place.tss)
  quads(place.gdt, 0n, 0x00af9b000000ffffn, 0x00cf93000000ffffn, 0x00cff3000000ffffn, 0x00affb000000ffffn,
    0x0000890000000067n | (tss << 16n), 0n)
  quads(place.gdt + 0x80, 0x37n | (BigInt(place.gdt) << 16n), 0n, 0xfffn | (BigInt(place.idt) << 16n), 0n)
  quads(place.idt + 2 * 16, BigInt(place.nmi & 0xffff) | (8n << 16n) | (0x8e00n << 32n) | (BigInt(place.nmi >> 16) << 48n), 0n)
  machine.writePhysical(place.tss + 4, Uint8Array.from(bytes(BigInt(place.stack), 8)))
}

const engines = ['interpreter', 'jit', 'step'] as const
const pieces = { interpreter: 1e6, jit: 1e6, step: 997 } as const

interface Outcome { machine: VitrineMachine; counts: bigint[]; hash: string }
const run = (vendor: Vendor, engine: (typeof engines)[number], first: bigint): Outcome =>
  finish(vendor, machineOf(vendor, engine, first), pieces[engine])
/** Runs to the end; answers what the counters say, and the hash of the state. */
function finish(vendor: Vendor, machine: VitrineMachine, piece: number): Outcome {
  while (machine.now < 10_000_000) machine.run({ maxInstructions: piece, untilTime: 10_000_000 })
  const counts = [0, 1].map(i => readMsr(machine.cpuAt(0), vendor.counter(i))!)
  return { machine, counts, hash: machine.stateHash() }
}

for (const vendor of vendors) {
  test(`${vendor.model}: a counter of one privilege level counts what executes there, in every engine`, () => {
    // mov; each round nop, nop, syscall, dec, jnz; mov, syscall
    const program = 1n + 5n * BigInt(rounds) + 2n
    // wrmsr, xor, mov, mov, sysret; each round test, jnz, inc, sysret; test, jnz, mov, mov, mov
    const kernel = 5n + 4n * BigInt(rounds) + 5n
    const results = engines.map(engine => run(vendor, engine, 0n))
    for (const { counts } of results) assert.deepEqual(counts, [program, kernel])
    for (const { hash } of results) assert.equal(hash, results[0].hash)
  })

  test(`${vendor.model}: an overflow interrupts between its instruction and the next, in every engine and after a snapshot`, () => {
    // after the mov and 9,999 rounds of 5 come nop, nop, syscall and dec
    const results = engines.map(engine => run(vendor, engine, (1n << 48n) - 50_000n))
    for (const { machine, hash } of results) {
      const frame = new DataView(machine.readPhysical(place.stack - 40, 40).buffer)
      assert.equal(frame.getBigUint64(0, true), BigInt(place.program + 6 + 7))
      assert.equal(machine.registers().gpr[15], 10_000n)
      assert.equal(hash, results[0].hash)
    }
    const half = machineOf(vendor, 'interpreter', (1n << 48n) - 50_000n)
    half.run({ maxInstructions: 30_001 })
    const other = machineOf(vendor, 'jit', (1n << 48n) - 50_000n)
    other.restoreState(half.saveState())
    assert.equal(finish(vendor, other, 1e6).hash, results[0].hash)
  })
}
