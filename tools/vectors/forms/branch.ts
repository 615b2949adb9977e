/** Forms of jumps, calls, returns and loops (SDM vol. 2). The target is in the code page; the resulting RIP is the result. */
import { anyFlags, gpr, setGpr, writeMemory } from '../form.ts'
import type { FormSpec, Group, Input } from '../form.ts'
import { CODE_PAGE, WINDOW } from '../../../test/vectors/state.ts'
import { CONDITIONS, anyStack } from './move.ts'

/** Not the instruction's own address: that would be a loop for ever. */
const target = (random: { below(n: number): number }): bigint => BigInt(CODE_PAGE + random.below(0x7f0) + (random.below(2) ? 0x810 : 0))
const targetIn = (number: number): Input => gpr(number, 64, target)

const targetAt = (register: number, offset: number): Input => (state, random) => {
  state.gpr[register] = BigInt(WINDOW + 0x100 + random.below(0x1000))
  writeMemory(state, state.gpr[register] + BigInt(offset), target(random), 8)
}

/** RSP somewhere, and a return address on top. */
const returnAddress: Input = (state, random) => {
  anyStack(state, random)
  writeMemory(state, state.gpr[4], target(random), 8)
}

const farPointer = (offsetBytes: number): Input => (state, random) => {
  const address = BigInt(WINDOW + 0x300 + random.below(256))
  state.gpr[6] = address
  writeMemory(state, address, target(random), offsetBytes)
  writeMemory(state, address + BigInt(offsetBytes), random.pick([0x33n, 0x33n, 0x23n, 0n, 0x2bn, 0xfff8n]), 2)
}

/** RETF and IRET frames: to the same privilege; a null or data CS is #GP. */
const frame = (size: number, slots: ('rip' | 'cs' | 'flags' | 'rsp' | 'ss')[]): Input => (state, random) => {
  state.gpr[4] = BigInt(WINDOW + 0x1000 + random.pick([0, 0, 8, 3]))
  slots.forEach((slot, i) => {
    const value = {
      rip: target(random), cs: random.pick([0x33n, 0x33n, 0x33n, 0x23n, 0n, 0x2bn]), flags: random.u64() & 0x244cd5n,
        rsp: BigInt(WINDOW + 0x1800 + random.below(64)), ss: 0x2bn,
    }[slot]
    writeMemory(state, state.gpr[4] + BigInt(size * i), value, size)
  })
}

function forms(): FormSpec[] {
  const list: FormSpec[] = []
  for (const condition of CONDITIONS) {
    list.push({ text: `j${condition} .+0x20`, inputs: [anyFlags], count: 16 })
    list.push({ text: `j${condition} .-0x300`, inputs: [anyFlags], count: 10 })
  }
  for (const text of ['jmp .+0x7f', 'jmp .-0x60', 'jmp .+0x700']) list.push({ text, inputs: [anyFlags], count: 1 })
  const count: Input = gpr(1, 64, (random) => random.pick([0n, 1n, 2n, 0x1_0000_0000n, 0x1_0000_0001n, 0xffff_ffff_0000_0000n,
    random.u64()]))
  for (const op of ['loop', 'loope', 'loopne', 'jrcxz']) {
    list.push({ text: `${op} .+0x30`, inputs: [anyFlags, count], count: 20 })
    list.push({ text: `addr32 ${op === 'jrcxz' ? 'jecxz' : op} .-0x30`.replace('addr32 jecxz', 'jecxz'), inputs: [anyFlags, count],
      count: 20 })
  }
  list.push({ text: 'call .+0x123', inputs: [anyStack], count: 10 }, { text: 'call .-0x123', inputs: [anyStack], count: 4 })
  for (const [register, number] of [['%rax', 0], ['%r15', 15]] as const) {
    list.push(
      { text: `jmp *${register}`, inputs: [targetIn(number)], count: 3 },
      { text: `call *${register}`, inputs: [anyStack, targetIn(number)], count: 8 },
    )
  }
  list.push(
    { text: 'jmp *(%rsi)', inputs: [targetAt(6, 0)], count: 3 },
    { text: 'call *8(%rdi)', inputs: [anyStack, targetAt(7, 8)], count: 6 },
  )
  list.push(
    { text: 'call *8(%rsp)', inputs: [targetAt(4, 8)], count: 4 },
    { text: 'call *%rsp', inputs: [(state, random) => setGpr(state, 4, 64, target(random))], count: 1 },
  )
  list.push(
    { text: 'ret', inputs: [returnAddress], count: 10 },
    { text: 'ret $0x18', inputs: [returnAddress], count: 6 },
    { text: 'ret $0xfff0', inputs: [returnAddress], count: 3 },
  )
  list.push({ text: 'repz ret', inputs: [returnAddress], count: 2 })
  list.push({ text: 'ljmpl *(%rsi)', inputs: [farPointer(4)], count: 16 }, { text: 'lcalll *(%rsi)', inputs: [farPointer(4)], count: 12 })
  list.push({ text: 'rex.w ljmp *(%rsi)', inputs: [farPointer(8)], count: 12, vendor: 'AuthenticAMD' })
  list.push(
    { text: 'lretl', inputs: [frame(4, ['rip', 'cs'])], count: 12 },
    { text: 'lretq', inputs: [frame(8, ['rip', 'cs'])], count: 12 },
    { text: 'lretq $0x10', inputs: [frame(8, ['rip', 'cs'])], count: 6 },
  )
  list.push({ text: 'iretq', inputs: [frame(8, ['rip', 'cs', 'flags', 'rsp', 'ss'])], count: 24 })
  list.push({ text: 'iretl', inputs: [frame(4, ['rip', 'cs', 'flags', 'rsp', 'ss'])], count: 12 })
  return list
}

export const BRANCH: Group = { name: 'branch', forms: forms() }
