/** Breakpoints and single steps, on tiny real-mode guests. Expectations: Intel SDM vol. 3, "Debug Exceptions". */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createMachine } from '../machine.ts'

const origin = 0x7c00
const log = 0x6000
/**
 * Stores DR6 and the return address of each #DB at [BX], which goes up by 8. A flags image of 16 bits holds no RF, so DR7 is cleared when
 * DI is not 0.
 */
const handler = [
  0x55,
  0x89,
  0xe5,
  0x66,
  0x50, //                push bp; mov bp, sp; push eax
  0x0f,
  0x21,
  0xf0,
  0x66,
  0x89,
  0x07, //          mov eax, dr6; mov [bx], eax
  0x8b,
  0x46,
  0x02,
  0x89,
  0x47,
  0x04, //          mov ax, [bp+2]; mov [bx+4], ax
  0x83,
  0xc3,
  0x08, //                            add bx, 8
  0x66,
  0x31,
  0xc0,
  0x0f,
  0x23,
  0xf0, //          xor eax, eax; mov dr6, eax
  0x85,
  0xff,
  0x74,
  0x03,
  0x0f,
  0x23,
  0xf8, //    test di, di; jz +3; mov dr7, eax
  0x66,
  0x58,
  0x5d,
  0xcf, //                      pop eax; pop bp; iret
]
const handlerAt = 0x7e00
const word = (value: number): number[] => [value & 0xff, (value >> 8) & 0xff]
const dword = (value: number): number[] => [...word(value), ...word(value >>> 16)]
const prologue = [
  0x31,
  0xc0,
  0x8e,
  0xd8,
  0x8e,
  0xd0,
  0xbc,
  ...word(0x7000), // xor ax, ax; mov ds, ax; mov ss, ax; mov sp, 0x7000
  0xc7,
  0x06,
  ...word(4),
  ...word(handlerAt),
  0xc7,
  0x06,
  ...word(6),
  ...word(0), // the vector of #DB
  0xbb,
  ...word(log), // mov bx, log
]
/** mov eax, value; mov drN, eax */
const setDr = (index: number, value: number): number[] => [0x66, 0xb8, ...dword(value), 0x0f, 0x23, 0xc0 | (index << 3)]

interface Trap {
  dr6: number
  ip: number
}

/** Runs `body` after the prologue until it halts; addresses in the result are offsets in the body. */
function run(body: (at: number) => number[], model = 'intel'): Trap[] {
  const start = origin + prologue.length
  const code = [...prologue, ...body(start), 0xf4]
  const image = new Uint8Array(handlerAt - origin + handler.length)
  image.set(code)
  image.set(handler, handlerAt - origin)
  const machine = createMachine({ raw: { image, at: origin, mode: 'real16' }, memory: 2 << 20, cpu: { model } })
  machine.run({ maxInstructions: 1000 })
  const view = new DataView(machine.readPhysical(log, 80).buffer)
  const traps: Trap[] = []
  for (let i = 0; view.getUint32(i, true) !== 0; i += 8)
    traps.push({ dr6: view.getUint32(i, true), ip: view.getUint16(i + 4, true) - start })
  return traps
}

const dr6 = (bits: number): number => (0xffff0ff0 | bits) >>> 0
const writeOf4 = 0x000d0402
const execute = 0x00000402

test('a data breakpoint traps after the instruction that writes any byte of its range', () => {
  const set = [...setDr(0, 0x5000), ...setDr(7, writeOf4)]
  const read = [0xa1, ...word(0x5000)] // mov ax, [0x5000]
  const write = [0xc6, 0x06, ...word(0x5003), 1] // mov byte [0x5003], 1
  const beyond = [0xc6, 0x06, ...word(0x5004), 1]
  const body = [...set, ...read, ...beyond, ...write, 0x90]
  assert.deepEqual(
    run(() => body),
    [{ dr6: dr6(1), ip: set.length + read.length + beyond.length + write.length }],
  )
})

test('a data breakpoint sees what PUSH and REP STOS write, an element at a time', () => {
  const set = [...setDr(0, 0x6ffe), ...setDr(7, 0x00050402), 0x50] // 2 bytes at the top of the stack; push ax
  const strings = [0xbf, ...word(0x6ffc), 0xb9, ...word(6), 0xf3, 0xaa, 0x31, 0xff] // mov di; mov cx; rep stosb; xor di, di
  const afterPush = set.length
  const rep = set.length + 6
  const traps = run(() => [...set, ...strings])
  // DI is not 0 in the string instruction, so the handler turns the breakpoint off at its first match, before the instruction ends
  assert.deepEqual(traps, [
    { dr6: dr6(1), ip: afterPush },
    { dr6: dr6(1), ip: rep },
  ])
})

test('an instruction breakpoint faults before its instruction', () => {
  const traps = run(start => {
    const set = [0xbf, ...word(1), ...setDr(0, start + 3 + 18), ...setDr(7, execute)] // mov di, 1: once
    return [...set, 0x40]
  })
  assert.deepEqual(traps, [{ dr6: dr6(1), ip: 21 }])
})

// AMD's processors put off interrupts and data breakpoints after MOV SS, but not these: so does kvm-unit-tests' emulator test say.
test('an instruction breakpoint right after MOV SS is held off by Intel only', () => {
  const body = (start: number): number[] => {
    const set = [0xbf, ...word(1), 0x8c, 0xd1, ...setDr(0, start + 25), ...setDr(7, execute)] // mov di, 1: once; mov cx, ss
    return [...set, 0x8e, 0xd1, 0x40] // mov ss, cx; inc ax
  }
  assert.deepEqual(run(body, 'intel'), [])
  assert.deepEqual(run(body, 'amd'), [{ dr6: dr6(1), ip: 25 }])
})

test('a data breakpoint that MOV SS puts off is reported with the instruction breakpoint after it, once', () => {
  const traps = run(start => {
    const set = [0xbf, ...word(1), ...setDr(0, 0x5000), ...setDr(1, start + 34), ...setDr(7, 0x0007040a)] // mov di, 1: once
    return [...set, 0x8e, 0x16, ...word(0x5000), 0x40] // mov ss, [0x5000]; inc ax
  }, 'amd')
  assert.deepEqual(traps, [{ dr6: dr6(3), ip: 34 }])
})

/** push flags with TF; popf */
const trapOn = [0x68, ...word(0x102), 0x9d]
const trapOff = [0x68, ...word(0x002), 0x9d]

test('single steps begin after the instruction after POPF; MOV SS swallows one; INT 1 by opcode is no step', () => {
  const steps = (...code: number[]): number[] => [...trapOn, ...code, ...trapOff]
  const on = trapOn.length
  const bs = dr6(0x4000)
  assert.deepEqual(
    run(() => steps(0x90)).map(t => t.ip),
    [on + 1, on + 4, on + 5],
  )
  assert.deepEqual(
    run(() => steps(0x8e, 0xd0 | 0, 0x90)).map(t => t.ip),
    [on + 3, on + 6, on + 7],
  ) // mov ss, ax
  assert.deepEqual(
    run(() => steps(0xf1, 0x90)),
    [{ dr6: dr6(0), ip: on + 1 }, ...[2, 5, 6].map(n => ({ dr6: bs, ip: on + n }))],
  )
})

test('a breakpoint that MOV SS puts off is reported with the INT 1 after it, once', () => {
  const set = [...setDr(0, 0x5000), ...setDr(7, 0x00070402)] // 2 bytes, read or write
  const body = [...set, 0x8e, 0x16, ...word(0x5000), 0xf1, 0x90] // mov ss, [0x5000]; int1
  assert.deepEqual(
    run(() => body),
    [{ dr6: dr6(1), ip: set.length + 5 }],
  )
})
