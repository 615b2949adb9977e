/** CPUID, time stamps, random numbers. Intel SDM vol. 2, the instructions' pages. */
import { cr4, cr4Low, cr0, cr0Low } from '../cpu/bits.ts'
import { readTsc } from '../cpu/msr.ts'
import { cpuid as cpuidLeaf } from '../cpu/cpuid.ts'
import { generalProtection } from '../cpu/fault.ts'
import { at } from '../cpu/layout.ts'
import { readCounter } from '../cpu/pmu.ts'
import { amdCounterNumber } from '../cpu/pmu-amd.ts'
import { intelCounterNumber } from '../cpu/pmu-intel.ts'
import { after, type After, type Processor } from '../cpu/processor.ts'
import { flag } from '../cpu/rflags.ts'
import { setArithmetic, writeGpr, writePair } from './registers.ts'

const apicBaseMsr = 0x1b
const apicEnable = 1n << 11n

export function cpuid(cpu: Processor): After {
  const { state } = cpu
  const control = cr4Low(state)
  const result = cpuidLeaf(cpu.model, Number(state.gpr[0] & 0xffffffffn), Number(state.gpr[1] & 0xffffffffn), {
    apicId: cpu.index,
    apicEnabled: ((cpu.apic.readMsr(apicBaseMsr) ?? 0n) & apicEnable) !== 0n,
    osxsave: (control & cr4.OSXSAVE) !== 0,
    ospke: (control & cr4.PKE) !== 0,
    xcr0: state.xcr0,
    xss: state.msrXss,
  })
  state.gpr[0] = BigInt(result[0])
  state.gpr[3] = BigInt(result[1])
  state.gpr[1] = BigInt(result[2])
  state.gpr[2] = BigInt(result[3])
  return after.next
}

function checkTsc(cpu: Processor): void {
  if (cr4Low(cpu.state) & cr4.TSD && cpu.state.cpl !== 0 && cr0Low(cpu.state) & cr0.PE) throw generalProtection()
}

const index = { rax: at.gpr >> 2, rdx: (at.gpr >> 2) + 4, tscOffset: at.tscOffset >> 2 } as const

/** EDX:EAX, in words: software waits in loops around it. */
function writeTsc(cpu: Processor): void {
  if (cpu.guest) return writePair(cpu.state, readTsc(cpu))
  const { words } = cpu.state
  const time = cpu.now()
  const low = (time % 2 ** 32) + words[index.tscOffset]
  words[index.rax] = low
  words[index.rax + 1] = 0
  words[index.rdx] = Math.floor(time / 2 ** 32) + words[index.tscOffset + 1] + (low >= 2 ** 32 ? 1 : 0)
  words[index.rdx + 1] = 0
}

export function rdtsc(cpu: Processor): After {
  checkTsc(cpu)
  writeTsc(cpu)
  return after.next
}

export function rdtscp(cpu: Processor): After {
  checkTsc(cpu)
  writeTsc(cpu)
  cpu.state.gpr[1] = cpu.state.msrTscAux & 0xffffffffn
  return after.next
}

export function rdpid(cpu: Processor): After {
  cpu.state.gpr[cpu.operation.registers[0]] = cpu.state.msrTscAux
  return after.next
}

export function rdpmc(cpu: Processor): After {
  const { state } = cpu
  if (!(cr4Low(state) & cr4.PCE) && state.cpl !== 0 && cr0Low(state) & cr0.PE) throw generalProtection()
  const { vendor, counters } = cpu.model
  const ecx = Number(state.gpr[1] & 0xffffffffn)
  const number = vendor === 'GenuineIntel' ? intelCounterNumber(counters, ecx) : amdCounterNumber(counters, ecx)
  if (number === undefined) throw generalProtection()
  writePair(state, readCounter(cpu, number))
  return after.next
}

/** Deterministic: SplitMix64 over the model's seed and the CPU's number. */
function random(cpu: Processor): After {
  const { state, operation } = cpu
  state.randomState = BigInt.asUintN(64, state.randomState + 0x9e3779b97f4a7c15n)
  let value = BigInt.asUintN(64, state.randomState + BigInt(cpu.index) * 0xd1b54a32d192ed03n)
  value = BigInt.asUintN(64, (value ^ (value >> 30n)) * 0xbf58476d1ce4e5b9n)
  value = BigInt.asUintN(64, (value ^ (value >> 27n)) * 0x94d049bb133111ebn)
  writeGpr(state, operation.registers[0], operation.operandSize, value ^ (value >> 31n))
  setArithmetic(state, flag.CF)
  return after.next
}

export const rdrand = random
export const rdseed = random
