/**
 * System instructions that generated code does by itself: the same as their helpers, wherever a run is cut. A cut in the shadow of STI, or
 * where the time that an instruction takes ends a run, goes the helpers' way.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createMachine, type VitrineMachine } from '../machine.ts'

const instructions = Uint8Array.from([
  0x0f, 0x20, 0xe0, 0x48, 0x0d, 0, 0, 0x61, 0, 0x0f, 0x22, 0xe0, // CR4 |= FSGSBASE, SMAP, PKE
  0xfb, 0x90, // STI; NOP
  0x0f, 0x31, 0x48, 0x01, 0xc6, // RDTSC; ADD RSI,RAX
  0xfa, // CLI
  0x0f, 0x01, 0xcb, 0x48, 0x8b, 0x1d, 0, 0, 0, 0, 0x0f, 0x01, 0xca, // STAC; MOV RBX,[RIP]; CLAC
  0x0f, 0x01, 0xca, // CLAC that changes nothing
  0xfb, // STI
  0x31, 0xc9, 0x0f, 0x01, 0xee, 0x48, 0x01, 0xc6, // XOR ECX,ECX; RDPKRU; ADD RSI,RAX
  0x0f, 0x01, 0xf9, 0x48, 0x01, 0xc6, // RDTSCP; ADD RSI,RAX
  0xf3, 0x48, 0x0f, 0xae, 0xc0, 0x48, 0xff, 0xc0, 0xf3, 0x48, 0x0f, 0xae, 0xd0, // RDFSBASE RAX; INC RAX; WRFSBASE RAX
  0x0f, 0x20, 0xd8, 0x48, 0x01, 0xc6, // MOV RAX,CR3; ADD RSI,RAX
  0x0f, 0x20, 0xd0, // MOV RAX,CR2
  0xf3, 0x90, // PAUSE
  0xfa, // CLI
  0xeb, 0xbe, // JMP to the STI
])

/** Returns within level 0: to a stack segment and with RF, to a null one and without. */
const returns = Uint8Array.from([
  0xbc, 0, 0, 0x20, 0, 0x0f, 0x01, 0x15, 0x35, 0, 0, 0, // MOV ESP,200000H; LGDT
  0x48, 0x89, 0xe0, 0x6a, 0x10, 0x50, 0x9c, // MOV RAX,RSP; PUSH 10H; PUSH RAX; PUSHF
  0x81, 0x0c, 0x24, 0, 0, 1, 0, 0x6a, 8, // OR [RSP],RF; PUSH 8
  0x48, 0x8d, 0x1d, 3, 0, 0, 0, 0x53, 0x48, 0xcf, 0x48, 0xff, 0xc6, // LEA RBX,[RIP+3]; PUSH RBX; IRET; INC RSI
  0x48, 0x89, 0xe0, 0x6a, 0, 0x50, 0x9c, 0x6a, 8, // MOV RAX,RSP; PUSH 0; PUSH RAX; PUSHF; PUSH 8
  0x48, 0x8d, 0x1d, 3, 0, 0, 0, 0x53, 0x48, 0xcf, 0x48, 0xff, 0xc6, // LEA RBX,[RIP+3]; PUSH RBX; IRET; INC RSI
  0xeb, 0xcb, // JMP to the first MOV RAX,RSP
  0x17, 0, 0x50, 0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, // GDTR
  0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x9b, 0x20, 0, 0, 0, 0, 0, 0, 0x93, 0, 0, // GDT: null, code, data
])
const programs = { 'instructions that ask or set': instructions, IRET: returns } as const

function make(engine: 'interpreter' | 'jit', model: 'intel' | 'amd', program: Uint8Array): VitrineMachine {
  const machine = createMachine({
    memory: 2 << 20, cpu: { model }, engine, raw: { image: program, at: 0x100000, mode: 'long64' },
  }) as VitrineMachine
  machine.core.jit?.compileEagerly()
  return machine
}
const warm = 400_000
/** More than a turn of the loop. */
const cuts = 30

const asks = 'instructions that ask or set'
for (const [model, what] of [['intel', asks], ['amd', asks], ['intel', 'IRET']] as const)
  test(`compiled, interpreted and in steps, a run has the same state after each instruction (${model}, ${what})`, () => {
    const stepped = make('interpreter', model, programs[what])
    stepped.run({ maxInstructions: warm })
    const compiled = make('jit', model, programs[what])
    compiled.run({ maxInstructions: warm })
    assert.ok(compiled.core.jit!.statistics.regions > 0, 'nothing was compiled')
    const [fromCompiled, fromInterpreted] = [compiled.saveState(), stepped.saveState()]
    assert.equal(compiled.stateHash(), stepped.stateHash())
    for (let cut = 1; cut <= cuts; cut++) {
      stepped.run({ maxInstructions: 1 })
      compiled.run({ maxInstructions: cut })
      assert.equal(compiled.stateHash(), stepped.stateHash(), `compiled, ${cut} instructions on`)
      compiled.restoreState(fromCompiled)
    }
    assert.ok(compiled.core.state.gpr[6] > 1000n, 'the loop did not run')
    stepped.restoreState(fromInterpreted)
    stepped.run({ maxInstructions: warm })
    compiled.run({ maxInstructions: warm })
    assert.equal(compiled.stateHash(), stepped.stateHash(), 'after many turns')
  })
