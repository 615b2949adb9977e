/** Who answers exits, and what the answers do to the guest. */
import { completeRead, writtenValue } from './device-access.ts'
import { completeStringElement, completeStringRead, operate } from './device-operation.ts'
import type { AnswerOf, Exit, ExitKind, ExitOf } from './exits.ts'
import { register } from './port.ts'
import { completeString } from './string-io.ts'
import type { Vcpu } from './vcpu.ts'
import type { Virtualizer } from './virtualizer.ts'

/** `stop`: the vCPU has done its work, and stands before the instruction that exited. Undefined: this handler does not answer. */
export type Handlers = {
  [Kind in ExitKind]?: (exit: ExitOf<Kind>, vcpu: Vcpu) => AnswerOf<Kind> | 'stop' | undefined
}

/** What becomes of the vCPU. */
export type Outcome = 'ready' | 'yields' | 'waiting' | 'stopped'

const low32 = 0xffffffffn
const generalProtection = 13

/** What the handler of that kind of exit answers; undefined: there is none, or it leaves the exit to others. */
export function callHandler(handlers: Handlers, exit: Exit, vcpu: Vcpu): unknown {
  return (handlers[exit.kind] as ((exit: Exit, vcpu: Vcpu) => unknown) | undefined)?.(exit, vcpu)
}

type Appliers = { [Kind in ExitKind]: (vcpu: Vcpu, exit: ExitOf<Kind>, answer: AnswerOf<Kind>, virtualizer: Virtualizer) => Outcome }

const { rax, rbx, rcx, rdx } = register

function fault(vcpu: Vcpu): Outcome {
  vcpu.event = { type: 'exception', vector: generalProtection, error: 0 }
  return 'ready'
}
/** Writes of 32 bits clear the upper half of a register, narrower ones keep the rest. */
function setLow(vcpu: Vcpu, number: number, value: bigint, size: number): void {
  const old = vcpu.general(number)
  const bits = BigInt(size * 8)
  vcpu.setGeneral(number, size === 4 ? value & low32 : BigInt.asUintN(64, (old >> bits) << bits) | BigInt.asUintN(size * 8, value))
}
const after = (vcpu: Vcpu, virtualizer: Virtualizer): Outcome => {
  virtualizer.advance(vcpu)
  return 'ready'
}

/** Where the processor does not say how long the instruction is. */
function skip(vcpu: Vcpu, length: number): Outcome {
  vcpu.set('rip', vcpu.get('rip') + BigInt(length))
  return 'ready'
}

const interruptFlag = 1n << 9n

const appliers: Appliers = {
  cpuid: (vcpu, _exit, { eax, ebx, ecx, edx }, virtualizer) => {
    ;[[rax, eax], [rbx, ebx], [rcx, ecx], [rdx, edx]].forEach(([number, value]) => (vcpu.registers[number] = BigInt(value >>> 0)))
    return after(vcpu, virtualizer)
  },
  halt: (vcpu, _exit, answer, virtualizer) => {
    after(vcpu, virtualizer)
    vcpu.deaf = answer === 'wait' && (vcpu.get('rflags') & interruptFlag) === 0n
    return answer === 'wait' && !vcpu.wakes ? 'waiting' : 'ready'
  },
  portRead: (vcpu, exit, answer, virtualizer) => {
    if (answer === 'fault') return fault(vcpu)
    if (exit.string) {
      completeString(vcpu, exit, answer.value >>> 0, virtualizer)
      return 'ready'
    }
    setLow(vcpu, rax, BigInt(answer.value >>> 0), exit.size)
    return after(vcpu, virtualizer)
  },
  portWrite: (vcpu, exit, answer, virtualizer) => {
    if (answer === 'fault') return fault(vcpu)
    if (!exit.string) return after(vcpu, virtualizer)
    completeString(vcpu, exit, 0, virtualizer)
    return 'ready'
  },
  hypercall: (vcpu, _exit, answer, virtualizer) => {
    if (answer === 'fault') return fault(vcpu)
    vcpu.registers[rax] = answer.result
    return after(vcpu, virtualizer)
  },
  msrRead: (vcpu, _exit, answer, virtualizer) => {
    if (answer === 'fault') return fault(vcpu)
    vcpu.registers[rax] = answer.value & low32
    vcpu.registers[rdx] = answer.value >> 32n
    return after(vcpu, virtualizer)
  },
  msrWrite: (vcpu, _exit, answer, virtualizer) => (answer === 'fault' ? fault(vcpu) : after(vcpu, virtualizer)),
  mmioRead: (vcpu, { address, size, instruction, raw }, { value }, virtualizer) => {
    if (instruction.string) {
      completeStringRead(vcpu, instruction, value, virtualizer)
      return 'ready'
    }
    if (!instruction.operation) {
      completeRead(vcpu, instruction, value)
      return skip(vcpu, instruction.length)
    }
    const device = BigInt.asUintN(size * 8, value)
    const back = operate(vcpu, instruction, device, writtenValue(vcpu, instruction), result => completeRead(vcpu, instruction, result))
    if (back === undefined) return skip(vcpu, instruction.length)
    vcpu.followUp = { kind: 'mmioWrite', address, size, value: back, instruction, raw }
    return 'ready'
  },
  mmioWrite: (vcpu, { instruction }) => {
    if (!instruction.string) return skip(vcpu, instruction.length)
    completeStringElement(vcpu, instruction)
    return 'ready'
  },
  memory: (vcpu, _exit, answer, virtualizer) =>
    answer === 'fault' ? fault(vcpu) : answer === 'skip' ? after(vcpu, virtualizer) : 'ready',
  exception: (vcpu, exit, answer, virtualizer) => {
    if (answer === 'skip') return after(vcpu, virtualizer)
    if (answer === 'deliver') vcpu.event = { type: 'exception', vector: exit.vector, error: exit.error }
    return 'ready'
  },
  control: (vcpu, exit, answer, virtualizer) => {
    if (answer === 'fault') return fault(vcpu)
    if (!exit.write) vcpu.setGeneral(exit.general, answer.value)
    else if (exit.register === 3) {
      if (!vcpu.shadow) vcpu.set('cr3', answer.value)
      else if (vcpu.shadow.write('cr3', answer.value)) virtualizer.setPaging(vcpu)
      else return fault(vcpu)
    }
    return after(vcpu, virtualizer)
  },
  invalidate: (vcpu, _exit, _answer, virtualizer) => after(vcpu, virtualizer),
  apicWrite: () => 'ready',
  endOfInterrupt: () => 'ready',
  pause: (vcpu, _exit, answer, virtualizer) => {
    after(vcpu, virtualizer)
    return answer === 'yield' ? 'yields' : 'ready'
  },
  shutdown: () => 'stopped',
  entryFailed: () => 'ready',
  other: (vcpu, _exit, answer, virtualizer) => (answer === 'fault' ? fault(vcpu) : answer === 'skip' ? after(vcpu, virtualizer) : 'ready'),
}

/** Does to the vCPU what an answer means for that kind of exit. */
export function applyAnswer(vcpu: Vcpu, exit: Exit, answer: unknown, virtualizer: Virtualizer): Outcome {
  if (answer === 'stop') return 'stopped'
  const apply = appliers[exit.kind] as (vcpu: Vcpu, exit: Exit, answer: unknown, virtualizer: Virtualizer) => Outcome
  return apply(vcpu, exit, answer, virtualizer)
}
