/** The log text is what QEMU 7.2 printed for `-d cpu,int` and for `info registers`; expected values are read off it by eye. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseInfoRegisters, QemuTraceParser, stateOfRecord } from './qemu-trace.ts'
import type { TraceEvent } from './qemu-trace.ts'
import { differences } from './state.ts'

const REAL_MODE = `EAX=00000000 EBX=00000000 ECX=00000000 EDX=00060fb1
ESI=00000000 EDI=00000000 EBP=00000000 ESP=00000000
EIP=0000fff0 EFL=00000002 [-------] CPL=0 II=0 A20=1 SMM=0 HLT=0
ES =0000 00000000 0000ffff 00009300
CS =f000 ffff0000 0000ffff 00009b00
SS =0000 00000000 0000ffff 00009300
DS =0000 00000000 0000ffff 00009300
FS =0000 00000000 0000ffff 00009300
GS =0000 00000000 0000ffff 00009300
LDT=0000 00000000 0000ffff 00008200
TR =0000 00000000 0000ffff 00008b00
GDT=     00000000 0000ffff
IDT=     00000000 0000ffff
CR0=60000010 CR2=00000000 CR3=00000000 CR4=00000000
DR0=0000000000000000 DR1=0000000000000000 DR2=0000000000000000 DR3=0000000000000000
DR6=00000000ffff0ff0 DR7=0000000000000400
CCS=00000000 CCD=00000000 CCO=EFLAGS
EFER=0000000000000000
`

const long = (rip: string, rax: string, cs = '0010'): string => `RAX=${rax} RBX=ffff888000014790 RCX=0000000000000400 RDX=0000000000000000
RSI=ffff888000014790 RDI=ffffffff832ba460 RBP=00000000000000a0 RSP=ffffffff82a03f30
R8 =0000000000000000 R9 =0000000000014790 R10=00000000030b9000 R11=000000000000001c
R12=0000000000000000 R13=0000000000000000 R14=0000000000000000 R15=0000000000014790
RIP=${rip} RFL=00000246 [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT=0
ES =0000 0000000000000000 00000000 00000000
CS =${cs} 0000000000000000 ffffffff 00af9b00 DPL=0 CS64 [-RA]
SS =0000 0000000000000000 00000000 00000000
DS =0000 0000000000000000 00000000 00000000
FS =0000 0000000000000000 00000000 00000000
GS =0000 ffffffff8301a000 00000000 00000000
LDT=0000 0000000000000000 00000000 00008200 DPL=0 LDT
TR =0020 0000000000000000 00000fff 00808900 DPL=0 TSS64-avl
GDT=     ffffffff83025000 0000007f
IDT=     ffffffff832b4000 00000fff
CR0=80050033 CR2=ffff888000014790 CR3=00000000030b6000 CR4=000000a0
DR0=0000000000000000 DR1=0000000000000000 DR2=0000000000000000 DR3=0000000000000000
DR6=00000000ffff0ff0 DR7=0000000000000400
CCS=0000000000000001 CCD=0000000000000000 CCO=LOGICB
EFER=0000000000000d01
`

const LOG =
  REAL_MODE +
  long('ffffffff8304e246', '0000000000000000') +
  'check_exception old: 0xffffffff new 0xe\n' +
  '     0: v=0e e=0002 i=0 cpl=0 IP=0010:ffffffff8304e246 pc=ffffffff8304e246 SP=0000:ffffffff82a03f30 CR2=ffff888000014790\n' +
  long('ffffffff8304e246', '0000000000000000') +
  long('ffffffff82001000', '0000000000000000') +
  'Servicing hardware INT=0xec\n' +
  '     1: v=ec e=0000 i=0 cpl=0 IP=0010:ffffffff82001003 pc=ffffffff82001003 SP=0000:ffffffff82a03f30 ' +
  'env->regs[R_EAX]=0000000000000001\n' +
  long('ffffffff82001003', '0000000000000001') +
  long('ffffffff82002000', 'fedcba9876543210', '0033')

interface Seen {
  rip: bigint
  rax: bigint
  cs: number
  size: number
  events: TraceEvent[]
}

function parse(chunks: Uint8Array[]): Seen[] {
  const seen: Seen[] = []
  const parser = new QemuTraceParser((record) => {
    seen.push({ rip: record.rip, rax: record.gpr[0], cs: record.segments.cs.selector, size: record.codeSize, events: record.events })
  })
  for (const chunk of chunks) parser.feed(chunk)
  parser.end()
  return seen
}

const bytes = new TextEncoder().encode(LOG)

test('each dump is a record; a dump on delivery belongs to its event', () => {
  const seen = parse([bytes])
  assert.deepEqual(
    seen.map(({ rip, rax, cs, size }) => [rip, rax, cs, size]),
    [
      [0xfff0n, 0n, 0xf000, 16],
      [0xffffffff8304e246n, 0n, 0x10, 64],
      [0xffffffff82001000n, 0n, 0x10, 64],
      [0xffffffff82002000n, 0xfedcba9876543210n, 0x33, 64],
    ],
  )
  assert.deepEqual(
    seen.map(({ events }) => events.map(({ kind, vector, at }) => [kind, vector, at?.rip])),
    [[], [], [['exception', 0x0e, 0xffffffff8304e246n]], [['interrupt', 0xec, 0xffffffff82001003n]]],
  )
})

test('the log means the same however it is cut', () => {
  const whole = parse([bytes])
  for (const size of [1, 7, 100, 997]) {
    const chunks: Uint8Array[] = []
    for (let at = 0; at < bytes.length; at += size) chunks.push(bytes.slice(at, at + size))
    assert.deepEqual(parse(chunks), whole, `chunks of ${size} bytes`)
  }
})

test('memory of the chunks may be used again', () => {
  const shared = new Uint8Array(64)
  const seen: bigint[] = []
  const parser = new QemuTraceParser((record) => {
    seen.push(record.rip)
  })
  for (let at = 0; at < bytes.length; at += 64) {
    const part = bytes.subarray(at, at + 64)
    shared.set(part)
    parser.feed(shared.subarray(0, part.length))
  }
  parser.end()
  assert.equal(seen.length, 4)
})

test('"info registers" is read, carriage returns and all, to every register', () => {
  const record = parseInfoRegisters(long('ffffffff8304e246', '8000000000000001').replaceAll('\n', '\r\n'))
  const { codeSize, values } = stateOfRecord(record)
  assert.equal(codeSize, 64)
  const expected: Record<string, bigint> = {
    rax: 0x8000000000000001n, rbx: 0xffff888000014790n, rcx: 0x400n, rsi: 0xffff888000014790n, rdi: 0xffffffff832ba460n,
    rbp: 0xa0n, rsp: 0xffffffff82a03f30n, r9: 0x14790n, r10: 0x30b9000n, r11: 0x1cn, r15: 0x14790n,
    rflags: 0x246n, cs: 0x10n, tr: 0x20n, gs_base: 0xffffffff8301a000n, cs_attributes: 0xa09bn, tr_attributes: 0x8089n,
    gdtr_base: 0xffffffff83025000n, gdtr_limit: 0x7fn, cr0: 0x80050033n, cr3: 0x30b6000n, cr4: 0xa0n, efer: 0xd01n,
  }
  for (const [name, value] of Object.entries(expected)) assert.equal(values[name], value, name)
})

test('states differ in what software can see, and in nothing else', () => {
  const state = (text: string): ReturnType<typeof stateOfRecord> => stateOfRecord(parseInfoRegisters(text))
  const base = long('ffffffff8304e246', '0000000000000000')
  const changed = (from: string, to: string): string[] =>
    differences(state(base), state(base.replace(from, to))).map((difference) => difference.name)
  assert.deepEqual(changed('R15=0000000000014790', 'R15=0000000000014791'), ['r15'])
  assert.deepEqual(changed('RFL=00000246', 'RFL=00000247'), ['rflags'])
  assert.deepEqual(changed('RFL=00000246', 'RFL=00010246'), []) // RF
  assert.deepEqual(changed('SS =0000 0000000000000000 00000000', 'SS =0000 0000000000000000 ffffffff'), []) // ignored in 64-bit mode
  assert.deepEqual(changed('GS =0000 ffffffff8301a000', 'GS =0000 0000000000000000'), ['gs_base'])
})
