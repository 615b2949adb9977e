/**
 * System instructions that generated code does by itself: the same as their helpers, wherever a run is cut. A cut in the shadow of STI, or
 * where the time that an instruction takes ends a run, goes the helpers' way.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { flatLevels } from '../cpu/derive.ts'
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
/** Bytes in hexadecimal; what follows a semicolon is a comment. */
function hex(text: string): Uint8Array<ArrayBuffer> {
  const words = text.split('\n').flatMap(line => line.split(';')[0].trim().split(/\s+/))
  return Uint8Array.from(words.filter(word => word !== ''), word => Number.parseInt(word, 16))
}
/** The ways into a flat 32-bit kernel and out of it: SYSENTER, SYSEXIT, INT 80H, IRET to level 3 and within level 0, segment loads. */
const flatKernel = hex(`
  ; level 0, once: LGDT, LIDT, segments, LTR, paging by one page, MSRs of SYSENTER, STI, SYSEXIT
  bc 00 00 1f 00 0f 01 15 40 01 10 00 0f 01 1d 46 01 10 00 ea 1a 00 10 00 08 00 66 b8 10 00 8e d8 8e c0 8e d0 66 b8 28 00 0f 00 d8 b8
  00 00 18 00 c7 00 87 00 00 00 0f 22 d8 0f 20 e1 83 c9 10 0f 22 e1 0f 20 c1 81 c9 00 00 00 80 0f 22 c1 b9 74 01 00 00 b8 08 00 00 00
  31 d2 0f 30 41 b8 00 00 1e 00 0f 30 41 b8 9b 00 10 00 0f 30 b9 00 00 1d 00 ba 79 00 10 00 fb 0f 35
  ; the program: MOV GS; PUSHF; POP; ADD; MOV EBP,ESP; SYSENTER
  b8 3b 00 00 00 8e e8 9c 5b 01 de 89 e5 0f 34
  ; behind SYSENTER: CS and SS added, INT 80H, PUSHF, POP, ADD, INC, JMP
  66 8c c8 01 c6 66 8c d0 01 c6 cd 80 9c 5b 01 de 46 eb de
  ; level 0, by SYSENTER: PUSH FS, GS; MOV FS; a word by FS; MOV DS, ES; CS, SS, flags added; POP GS, FS; STI; SYSEXIT
  0f a0 0f a8 b8 30 00 00 00 8e e0 64 03 35 00 00 00 00 b8 23 00 00 00 8e d8 8e c0 66 8c c8 01 c6 66 8c d0 01 c6 9c 58 01 c6 0f a9 0f
  a1 ba 88 00 10 00 89 e9 fb 0f 35
  ; of INT 80H: PUSH DS, ES, FS; loads, FS a null one; words of the frame; PUSHF, PUSH CS, PUSH, IRET
  1e 06 0f a0 b8 23 00 00 00 8e d8 8e c0 31 c0 8e e0 03 34 24 03 74 24 0c 03 74 24 18 9c 0e 68 f6 00 10 00 cf
  ; behind that IRET: POP FS, ES, DS; IRET
  46 0f a1 07 1f cf 8d 74 26 00
  ; GDT: null, code and data of levels 0 and 3, TSS, data from 100000H on, data of level 3; GDTR, IDTR, gate 80H, TSS
  00 00 00 00 00 00 00 00 ff ff 00 00 00 9b cf 00 ff ff 00 00 00 93 cf 00 ff ff 00 00 00 fb cf 00 ff ff 00 00 00 f3 cf 00 67 00 54 01
  10 89 00 00 ff 0f 00 00 10 93 40 00 ff ff 00 00 00 f3 cf 00 3f 00 00 01 10 00 07 04 4c fd 0f 00 d2 00 08 00 00 ee 10 00 00 00 00 00
  00 00 1f 00 10 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00
  00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00
  00 00 00 00 00 00 00 00 00 00 00 00`)
const programs = { 'instructions that ask or set': instructions, IRET: returns, 'a 32-bit kernel': flatKernel } as const

function make(engine: 'interpreter' | 'jit', model: 'intel' | 'amd', program: Uint8Array): VitrineMachine {
  const machine = createMachine({
    memory: 2 << 20, cpu: { model }, engine, raw: { image: program, at: 0x100000, mode: program === flatKernel ? 'protected32' : 'long64' },
  }) as VitrineMachine
  machine.core.jit?.compileEagerly()
  return machine
}
const warm = 400_000
/** More than a turn of the loop. */
const cuts: Readonly<Record<keyof typeof programs, number>> = { 'instructions that ask or set': 30, IRET: 30, 'a 32-bit kernel': 60 }

const asks = 'instructions that ask or set'
const kernel = 'a 32-bit kernel'
for (const [model, what] of [['intel', asks], ['amd', asks], ['intel', 'IRET'], ['intel', kernel], ['amd', kernel]] as const)
  test(`compiled, interpreted and in steps, a run has the same state after each instruction (${model}, ${what})`, () => {
    const stepped = make('interpreter', model, programs[what])
    stepped.run({ maxInstructions: warm })
    const compiled = make('jit', model, programs[what])
    compiled.run({ maxInstructions: warm })
    assert.ok(compiled.core.jit!.statistics.regions > 0, 'nothing was compiled')
    const [fromCompiled, fromInterpreted] = [compiled.saveState(), stepped.saveState()]
    assert.equal(compiled.stateHash(), stepped.stateHash())
    for (let cut = 1; cut <= cuts[what]; cut++) {
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

for (const model of ['intel', 'amd'] as const)
  test(`helpers alone leave the same state (${model}, ${kernel})`, () => {
    const [quick, slow] = [make('interpreter', model, flatKernel), make('interpreter', model, flatKernel)]
    quick.run({ maxInstructions: 1 })
    slow.run({ maxInstructions: 1 })
    const calls = [quick, slow].map(machine => countHelpers(machine))
    const { state, running } = slow.core
    const derive = running!.stateChanged.bind(running)
    Object.assign(running!, { stateChanged: () => {
      derive()
      state.systemCalls &= ~flatLevels
    } })
    running!.stateChanged()
    for (const maxInstructions of [5000, 1, 1, 1, 1, 7, 20_000]) {
      quick.run({ maxInstructions })
      slow.run({ maxInstructions })
      assert.equal(quick.stateHash(), slow.stateHash(), `${quick.retired} instructions`)
    }
    const [few, many] = calls.map(count => count())
    // MOV GS of the program and INT 80H are always helpers; a turn is 53 instructions
    assert.ok(few < 2.2 * (quick.retired / 53) && many > 15 * (quick.retired / 53), `${few} and ${many} helpers in ${quick.retired}`)
  })

function countHelpers({ core }: VitrineMachine): () => number {
  const cpu = core.running!
  const original = cpu.callHelper
  let calls = 0
  Object.assign(cpu, { callHelper: (number: number, record: number) => (calls++, original(number, record)) })
  return () => calls
}
