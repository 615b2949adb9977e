/** The quick delivery does what the general one does, or nothing: random states, gates, descriptors and stacks through both. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { cr4 } from './bits.ts'
import { exceptionFrom, externalInterrupt, setsResumeFlag, softwareInterrupt, type CpuEvent } from './event.ts'
import { Fault, vector } from './fault.ts'
import { deliverOnce } from './interrupt.ts'
import { deliverQuickly } from './interrupt-quick.ts'
import { flag, writeRflags } from './rflags.ts'
import { createTestProcessor, descriptor, enterLong, enterProtected, faultOf, gate, gdtAddress, idtAddress, selectors, tssAddress,
  type TestProcessor } from './testing.ts'

const cases = 1500
const handlerPage = 0x7_0000

/** Numbers below `below`, the same in each run. */
function numbers(seed: number): (below: number) => number {
  let x = seed | 1
  return below => {
    x = (Math.imul(x, 1664525) + 1013904223) >>> 0
    return Math.floor((x / 2 ** 32) * below)
  }
}
const oneOf = <T>(next: (below: number) => number, ...values: T[]): T => values[next(values.length)]
/** The usual value, but for one time in `n`. */
const mostly = <T>(next: (below: number) => number, n: number, usual: T, ...others: T[]): T => (next(n) ? usual : oneOf(next, ...others))

function randomEvent(next: (below: number) => number): CpuEvent {
  const number = oneOf(next, vector.PF, vector.GP, 0x20, 0x80, 0xff)
  switch (next(3)) {
    case 0: return softwareInterrupt(number, oneOf(next, 0x40_1002n, 0xffff_8000_1234_0002n))
    case 1: return externalInterrupt(number)
    default: return exceptionFrom(new Fault(number & 31, mostly(next, 3, 6, undefined, 0xffff_ffff), 0x1234_5678_9000n))
  }
}

/** A processor at an event: the usual state of a kernel, with something odd now and then. */
function stageLong(cpu: TestProcessor, seed: number): CpuEvent {
  const next = numbers(seed)
  const { state, memory } = cpu
  state.bytes.set(pristine)
  cpu.absent.clear()
  const cpl = oneOf(next, 0, 3, 3, 1)
  enterLong(cpu, cpl)
  const event = randomEvent(next)
  state.cr4 |= mostly(next, 30, 0n, BigInt(cr4.LA57))
  state.rip = oneOf(next, 0x40_1000n, 0xffff_ffff_8000_0000n)
  writeRflags(state, next(0x400000))
  state.interruptShadow = next(4)
  const stacks = [0x8000n, 0xffff_8000_0000_8ff8n, 0x8001n, 0x9010n, 0x9028n, 0n, 0x1_0000_0000n, 0x8000_0000_0000n, 0xffff_ffff_0000_0010n]
  state.gpr[4] = mostly(next, 2, 0x8000n, ...stacks)
  memory.write64(tssAddress + 4n, mostly(next, 2, 0x8000n, ...stacks))
  memory.write64(tssAddress + 0x24n, 0xa000n)
  state.segLimit[7] = mostly(next, 20, 0x67, 10, 11)
  state.idtrBase = mostly(next, 20, idtAddress, idtAddress + 2n, idtAddress + 0xff8n)
  state.idtrLimit = mostly(next, 20, 0xfff, event.vector * 16 + 14, event.vector * 16 + 15)
  state.gdtrLimit = mostly(next, 20, 0xff, selectors.code64 + 6, selectors.code64 + 7)
  const high = mostly(next, 10, 0xa09b00, 0xa09a00, 0xa01b00, 0xa09300, 0xe09b00, 0xc09b00, 0xa0fb00, 0xa09f00, 0x20bb00)
  memory.write64(gdtAddress + BigInt(selectors.code64), (BigInt(high | next(256)) << 32n) | 0x1234ffffn)
  const selector = mostly(next, 10, selectors.code64, 0, 3, selectors.code64 | 3, selectors.code64 | 4, selectors.user64, selectors.data0)
  const kind = mostly(next, 10, oneOf(next, 14, 15), 12, 5, 0)
  const low = gate(selector, handlerPage + next(0x10000), kind, oneOf(next, 0, 3, 3), mostly(next, 10, 0, 1))
  memory.write64(state.idtrBase + BigInt(event.vector * 16), next(20) ? low : low & ~(0x80n << 40n))
  memory.write64(state.idtrBase + BigInt(event.vector * 16 + 8), mostly(next, 20, oneOf(next, 0n, 0xffff_ffffn), 0x8000n, 0x7fffn))
  const absent = mostly(next, 20, -1, Number(idtAddress), Number(gdtAddress), Number(tssAddress), 0x8000, 0x9000)
  if (absent >= 0) cpu.absent.add(absent >> 12)
  return event
}

/** The same in flat 32-bit code. */
function stageFlat(cpu: TestProcessor, seed: number): CpuEvent {
  const next = numbers(seed)
  const { state, memory } = cpu
  state.bytes.set(pristine)
  cpu.absent.clear()
  const cpl = oneOf(next, 0, 3, 3, 1)
  enterProtected(cpu, cpl)
  if (cpl === 1) state.segSelector[1] = 1 | selectors.code0
  const event = randomEvent(next)
  state.cr4 |= mostly(next, 30, 0n, BigInt(cr4.CET))
  state.efer |= mostly(next, 30, 0n, 0x500n)
  state.rip = oneOf(next, 0x40_1000n, 0xc123_4567n)
  writeRflags(state, next(0x400000) & ~(mostly(next, 30, flag.VM, 0) | 0))
  state.interruptShadow = next(4)
  const stacks = [0x8000n, 0xc000_8ff8n, 0x8001n, 0x8002n, 0x9008n, 0x900cn, 0x9014n, 0x9031n, 0x9022n, 4n, 0n, 0xffff_fffcn]
  state.gpr[4] = mostly(next, 2, 0x8000n, ...stacks)
  memory.write32(tssAddress + 4n, Number(mostly(next, 2, 0x8000n, ...stacks)))
  const accessed = 1n << 40n
  const stack = descriptor.data32(0) | accessed
  memory.write64(gdtAddress + BigInt(selectors.data0), mostly(next, 10, stack, stack & ~accessed, stack ^ (1n << 54n), stack ^ (1n << 55n),
    stack ^ (1n << 41n), stack ^ (1n << 42n), stack ^ (1n << 45n), stack ^ (1n << 47n), stack ^ (1n << 56n), stack ^ 1n))
  memory.write32(tssAddress + 8n, mostly(next, 10, selectors.data0, 0, selectors.data0 | 3, selectors.data0 | 4, selectors.data3))
  state.segLimit[7] = mostly(next, 20, 0x67, 10, 11)
  state.segAttributes[7] = mostly(next, 20, 0x8b, 0x83)
  state.idtrBase = mostly(next, 20, idtAddress, idtAddress + 2n, idtAddress + 0xff8n)
  state.idtrLimit = mostly(next, 20, 0xfff, event.vector * 8 + 6, event.vector * 8 + 7)
  state.gdtrLimit = mostly(next, 20, 0xff, selectors.code0 + 6, selectors.code0 + 7)
  const code = descriptor.code32(0) | accessed
  memory.write64(gdtAddress + BigInt(selectors.code0), mostly(next, 10, code, code & ~accessed, code ^ (1n << 42n), code ^ (1n << 43n),
    code ^ (1n << 45n), code ^ (1n << 47n), code ^ (1n << 54n), code ^ (1n << 55n), code ^ 1n, code ^ (1n << 16n), code ^ (1n << 56n)))
  const selector = mostly(next, 10, selectors.code0, 0, 3, selectors.code0 | 3, selectors.code0 | 4, selectors.code3, selectors.data0)
  const kind = mostly(next, 10, oneOf(next, 14, 15), 6, 7, 12, 5, 0)
  const low = gate(selector, handlerPage + next(0x10000), kind, oneOf(next, 0, 3, 3), 0)
  memory.write64(state.idtrBase + BigInt(event.vector * 8), next(20) ? low : low & ~(0x80n << 40n))
  const absent = mostly(next, 20, -1, Number(idtAddress), Number(gdtAddress), Number(tssAddress), 0x8000, 0x7000)
  if (absent >= 0) cpu.absent.add(absent >> 12)
  if (next(30) === 0) state.segLimit[next(4)] = 0xfffff
  cpu.stateChanged()
  return event
}

const pristine = createTestProcessor().state.bytes

/** What the run loop or INT n would ask for. */
function quickly(cpu: TestProcessor, event: CpuEvent): boolean {
  const software = event.kind === 'softwareInterrupt'
  const rip = software ? event.nextRip : cpu.state.rip
  const resume = setsResumeFlag(event) ? flag.RF : 0
  return deliverQuickly(cpu, event.vector, event.error ?? -1, software ? cpu.state.cpl : 0, Number(rip & 0xffffffffn), Number(rip >> 32n),
    resume)
}

for (const [name, stage] of [['64-bit', stageLong], ['flat 32-bit', stageFlat]] as const)
  test(`${cases} deliveries by chance in ${name} code: quickly as in general, or not at all`, () => {
    const general = createTestProcessor()
    const tried = createTestProcessor()
    tried.known = true
    const outcome = { quick: 0, faults: 0 }
    for (let seed = 1; seed <= cases; seed++) {
      const event = stage(general, seed * 7919)
      stage(tried, seed * 7919)
      const before = Buffer.from(tried.state.bytes)
      const fault = faultOf(() => deliverOnce(general, event))
      if (fault) outcome.faults++
      if (!quickly(tried, event)) {
        assert.ok(before.equals(tried.state.bytes), `seed ${seed}: not delivered, and something changed`)
        continue
      }
      outcome.quick++
      assert.equal(fault, undefined, `seed ${seed}: a fault was not seen`)
      if (event.vector === vector.PF && event.kind === 'exception') tried.state.cr2 = event.address!
      assert.ok(Buffer.from(general.state.bytes).equals(tried.state.bytes), `seed ${seed}: ${event.kind} ${event.vector}`)
    }
    assert.ok(outcome.quick > cases / 5 && outcome.faults > cases / 10, JSON.stringify(outcome))
  })
