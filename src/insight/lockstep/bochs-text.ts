/**
 * Reads what Bochs's internal debugger prints for `r`, `sreg`, `creg`, `sse` and `x`.
 * The format is that of Bochs 2.7; see the Bochs user manual, "Using Bochs internal debugger".
 */
import type { CodeSize } from '../disassemble.ts'
import { GENERAL } from './state.ts'
import type { PeerState } from './state.ts'

const digits = (text: string): bigint => BigInt(`0x${text.replaceAll('_', '').replace(/^0x/, '')}`)

/** The answers to `r`, `sreg`, `creg` and `sse`, one after the other. */
export function parseBochsRegisters(text: string): PeerState {
  const values: Record<string, bigint> = {}
  for (const [, name, value] of text.matchAll(/^(r\w\w|r[89] ): (\w+)/gm)) values[name.trim()] = digits(value)
  const eflags = /^eflags (0x\w+)/m.exec(text)
  if (!eflags || values.rip === undefined) throw new Error(`Bochs's debugger shows no registers in "${text.slice(0, 200)}"`)
  values.rflags = digits(eflags[1])
  let codeHigh = 0
  const segments = /^(es|cs|ss|ds|fs|gs|ldtr|tr):(0x\w+), dh=(0x\w+), dl=0x\w+, valid=\d+(?:\n\t.*base=0x(\w+), limit=0x(\w+))?/gm
  for (const [, name, selector, high, base, limit] of text.matchAll(segments)) {
    values[name] = digits(selector)
    if (base !== undefined) values[`${name}_base`] = digits(base)
    if (limit !== undefined) values[`${name}_limit`] = digits(limit)
    if (name === 'cs') codeHigh = Number(high)
  }
  for (const [, name, base, limit] of text.matchAll(/^([gi]dtr):base=0x(\w+), limit=0x(\w+)/gm)) {
    values[`${name}_base`] = digits(base)
    values[`${name}_limit`] = digits(limit)
  }
  for (const [, name, value] of text.matchAll(/^(CR[0348]|EFER)(?:=|: )0x(\w+)/gm)) values[name.toLowerCase()] = digits(value)
  const cr2 = /^CR2=.*laddr=0x(\w+)/m.exec(text)
  if (cr2) values.cr2 = digits(cr2[1])
  for (const [, number, value] of text.matchAll(/^XMM\[(\d+)\]: (\w+)/gm)) values[`xmm${Number(number)}`] = digits(value)
  const mxcsr = /^MXCSR: 0x(\w+)/m.exec(text)
  if (mxcsr) values.mxcsr = digits(mxcsr[1])
  for (const name of [...GENERAL, 'cs', 'cr0', 'efer']) if (values[name] === undefined) throw new Error(`Bochs's debugger shows no ${name}`)
  return { codeSize: codeSize(codeHigh, values), values }
}

function codeSize(high: number, { efer, cr0 }: Record<string, bigint>): CodeSize {
  if ((efer & 0x400n) !== 0n && (high & 0x200000) !== 0) return 64
  return (cr0 & 1n) !== 0n && (high & 0x400000) !== 0 ? 32 : 16
}

/** The answer to `x /Nbx ADDRESS`; shorter than asked when memory is not mapped. */
export function parseBochsMemory(text: string): Uint8Array {
  const bytes: number[] = []
  for (const [, line] of text.matchAll(/^0x\w+ <[^>]*>:((?:\t0x\w\w)+)/gm)) {
    for (const [, byte] of line.matchAll(/\t0x(\w\w)/g)) bytes.push(parseInt(byte, 16))
  }
  return Uint8Array.from(bytes)
}
