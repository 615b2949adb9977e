/** Exits that shadow paging is about: what becomes of the vCPU, or what is left for others to answer. */
import type { AnyExit } from '../exits.ts'
import { instructionAt, readLinear } from '../guest-walk.ts'
import { codeSizeOf, linearAddress, modRm, parse } from '../memory-operand.ts'
import type { Vcpu } from '../vcpu.ts'
import type { Virtualizer } from '../virtualizer.ts'
import { raise, vector } from './raise.ts'
import { deliverReal, RealMode } from './real-mode.ts'

const alignmentCheck = 1n << 18n

/** 'ready': done, the guest goes on. An exit: somebody else's, perhaps another one. */
export function answerShadow(vcpu: Vcpu, exit: AnyExit, virtualizer: Virtualizer): AnyExit | 'ready' {
  const shadow = vcpu.shadow!
  switch (exit.kind) {
    case 'pageFault': return pageFault(vcpu, exit, virtualizer)
    case 'controlWrite':
      if (!shadow.write(exit.register === 0 ? 'cr0' : 'cr4', exit.value)) return raise(vcpu, vector.generalProtection, 0)
      virtualizer.setPaging(vcpu)
      return after(vcpu, virtualizer)
    case 'control':
      if (exit.register === 8 || (exit.register === 3 && vcpu.intercepts.translation)) return exit
      if (!exit.write) vcpu.setGeneral(exit.general, exit.value)
      else if (!shadow.write('cr3', exit.value)) return raise(vcpu, vector.generalProtection, 0)
      else virtualizer.setPaging(vcpu, 'cr3')
      return after(vcpu, virtualizer)
    case 'invalidate':
      shadow.invalidate(exit.address)
      virtualizer.forget(vcpu, exit.address)
      return vcpu.intercepts.translation ? exit : after(vcpu, virtualizer)
    case 'invpcid': return invalidatePcid(vcpu, exit, virtualizer)
    case 'realMode': return realMode(vcpu, exit, virtualizer)
    default: return exit
  }
}

function after(vcpu: Vcpu, virtualizer: Virtualizer): 'ready' {
  virtualizer.advance(vcpu)
  return 'ready'
}

/** #GP of virtual-8086 mode is an instruction to be done; from CR0.PE = 1 to the far jump one after the other is. */
function realMode(vcpu: Vcpu, { vector: which, raw }: Extract<AnyExit, { kind: 'realMode' }>, virtualizer: Virtualizer): AnyExit | 'ready' {
  if (which !== vector.generalProtection) {
    deliverReal(vcpu, which)
    return 'ready'
  }
  const mode = new RealMode(vcpu, virtualizer, raw)
  for (;;) {
    const outcome = mode.step()
    if (outcome !== 'ready' || !vcpu.shadow!.betweenModes) return outcome
  }
}

type Fault = Extract<AnyExit, { kind: 'pageFault' }>
function pageFault(vcpu: Vcpu, { address, error, raw }: Fault, virtualizer: Virtualizer): AnyExit | 'ready' {
  const shadow = vcpu.shadow!
  const outcome = shadow.fault({
    linear: address, error,
    get userMode() {
      return ((vcpu.get('ssAttributes') >> 5n) & 3n) === 3n
    },
    get alignmentCheck() {
      return (vcpu.get('rflags') & alignmentCheck) !== 0n
    },
  })
  if (shadow.takeMoved()) virtualizer.setPaging(vcpu)
  if (outcome.kind === 'memory') return { ...outcome, raw }
  if (outcome.kind === 'filled') return 'ready'
  virtualizer.setFaultAddress(vcpu, address)
  if (vcpu.intercepts.exceptions & (1 << vector.pageFault))
    return { kind: 'exception', vector: vector.pageFault, error: outcome.error, address, raw }
  return raise(vcpu, vector.pageFault, outcome.error)
}

/** Its operand lies in memory: INVPCID r64, m128. */
function invalidatePcid(vcpu: Vcpu, exit: AnyExit, virtualizer: Virtualizer): AnyExit | 'ready' {
  const code = instructionAt(vcpu)
  const parsed = parse(code, codeSizeOf(vcpu))
  const opcodeLength = 3
  const { register, other } = modRm(vcpu, code, parsed, parsed.opcode + opcodeLength)
  const bytes = other.kind === 'memory' ? readLinear(vcpu, linearAddress(vcpu, other.segment, other.offset), 16) : undefined
  if (bytes?.length !== 16) return { kind: 'other', name: 'INVPCID with an operand that is not in memory', raw: exit.raw }
  const [descriptor, linear] = new BigUint64Array(bytes.slice().buffer)
  if (!vcpu.shadow!.invalidatePcid(vcpu.general(register), descriptor, linear)) return raise(vcpu, vector.generalProtection, 0)
  virtualizer.setPaging(vcpu)
  return after(vcpu, virtualizer)
}
