/** Shadow stacks in both engines, by the pseudocode of Intel SDM vol. 2 and the rules of vol. 1, "Shadow Stacks". */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { control, createWorld, istVector, place, selector } from './world.ts'

const vector = { UD: 6, GP: 13, PF: 14, CP: 21 } as const
const { shadowStack, write } = control
const hlt = [0xf4]
const ret = [0xc3]
const call = (distance: number): number[] => [0xe8, distance & 0xff, (distance >> 8) & 0xff, (distance >> 16) & 0xff, distance >> 24 & 0xff]
const rdsspq = [0xf3, 0x48, 0x0f, 0x1e, 0xc8] // RAX
const incsspq = [0xf3, 0x48, 0x0f, 0xae, 0xe8] // RAX
const incsspd = [0xf3, 0x0f, 0xae, 0xe8]
const saveprevssp = [0xf3, 0x0f, 0x01, 0xea]
const rstorssp = [0xf3, 0x0f, 0x01, 0x2f] // [RDI]
const wrssq = [0x48, 0x0f, 0x38, 0xf6, 0x07] // [RDI], RAX
const wrussq = [0x66, 0x48, 0x0f, 0x38, 0xf5, 0x07]
const setssbsy = [0xf3, 0x0f, 0x01, 0xe8]
const clrssbsy = [0xf3, 0x0f, 0xae, 0x37] // [RDI]
const popRcx = [0x59]
const pushRcx = [0x51]
const int = (number: number): number[] => [0xcd, number]
const iretq = [0x48, 0xcf]
const rdi = 7

for (const [engine, w] of [['interpreter', createWorld(false)], ['jit', createWorld(true)]] as const)
  describe(engine, () => {
    const { state } = w.core
    const supervisor = (code: readonly number[], controls = shadowStack | write): void => {
      w.restart(controls, shadowStack | write)
      w.load(place.code, code)
    }
    const inUser = (code: readonly number[], controls = shadowStack | write, kernel = shadowStack): void => {
      w.restart(kernel, controls)
      w.load(place.userCode, code)
      w.enterUser()
    }

    test('a call pushes its return address on both stacks, a return compares them', () => {
      inUser([...call(1), ...hlt, ...rdsspq, ...ret])
      assert.equal(w.run(), vector.GP, 'HLT is privileged')
      assert.equal(w.frame(1), BigInt(place.userCode + 5))
      assert.equal(state.gpr[0], BigInt(place.userShadow - 8))
      assert.equal(w.read(place.userShadow - 8), BigInt(place.userCode + 5))
      assert.equal(state.msrPlSsp[3], BigInt(place.userShadow), 'the event has put the user\'s pointer away')
    })

    test('another return address is #CP(1); nothing has changed', () => {
      inUser([...call(0), ...popRcx, 0x48, 0xff, 0xc1, ...pushRcx, ...ret]) // inc rcx: the call of the next instruction is no call
      assert.equal(w.run(), vector.PF, 'RET pops the shadow stack, which is empty')
      inUser([...call(1), ...hlt, ...popRcx, 0x48, 0xff, 0xc1, ...pushRcx, ...ret])
      assert.equal(w.run(), vector.CP)
      assert.equal(w.frame(0), 1n)
      assert.equal(w.frame(1), BigInt(place.userCode + 11))
      assert.equal(w.frame(4), BigInt(place.userStack - 8))
      assert.equal(state.msrPlSsp[3], BigInt(place.userShadow - 8))
    })

    test('a shadow-stack access elsewhere is #PF with bit 6; a store to a shadow stack is #PF without', () => {
      inUser(call(1))
      state.ssp = BigInt(place.plain + 8)
      assert.equal(w.run(), vector.PF)
      assert.equal(w.frame(0), 0x47n, 'present, write, user, shadow stack')
      assert.equal(state.cr2, BigInt(place.plain))
      inUser(call(1))
      state.ssp = BigInt(place.shadow)
      assert.equal(w.run(), vector.PF, 'the supervisor\'s shadow stack is not the user\'s')
      assert.equal(w.frame(0), 0x47n)
      inUser([0x48, 0x89, 0x07]) // mov [rdi], rax
      state.gpr[rdi] = BigInt(place.userShadow - 8)
      assert.equal(w.run(), vector.PF)
      assert.equal(w.frame(0), 7n)
      inUser([0x48, 0x8b, 0x07, ...hlt]) // mov rax, [rdi]
      state.gpr[rdi] = BigInt(place.userShadow - 8)
      assert.equal(w.run(), vector.GP, 'it can be read')
    })

    test('a page that is not dirty is no shadow stack', () => {
      inUser(call(1))
      w.quad(place.table + (place.userShadow - 4096 >> 12) * 8, BigInt(place.userShadow - 4096) | 0x25n)
      w.core.mmu.flushAll()
      assert.equal(w.run(), vector.PF)
      assert.equal(w.frame(0), 0x47n)
    })

    test('RDSSP does nothing without shadow stacks, the others are undefined', () => {
      inUser([...rdsspq, ...incsspq], 0n)
      state.gpr[0] = 0x1234n
      assert.equal(w.run(), vector.UD)
      assert.equal(state.gpr[0], 0x1234n)
      assert.equal(w.frame(0), BigInt(place.userCode + rdsspq.length))
    })

    test('INCSSP passes elements of 8 or 4 bytes and reads the first and the last', () => {
      inUser([...incsspq, ...rdsspq, ...hlt])
      state.ssp = BigInt(place.userShadow - 64)
      state.gpr[0] = 0x103n
      assert.equal(w.run(), vector.GP)
      assert.equal(state.gpr[0], BigInt(place.userShadow - 40))
      inUser([...incsspd, ...rdsspq, ...hlt])
      state.ssp = BigInt(place.userShadow - 64)
      state.gpr[0] = 3n
      assert.equal(w.run(), vector.GP)
      assert.equal(state.gpr[0], BigInt(place.userShadow - 52))
      inUser(incsspq)
      state.ssp = BigInt(place.userShadow - 64)
      state.gpr[0] = 0x209n
      assert.equal(w.run(), vector.PF, 'one element too many')
      assert.equal(w.frame(0), 0x45n)
      assert.equal(state.cr2, BigInt(place.userShadow))
    })

    test('WRSS writes where shadow stacks are, when it may; WRUSS is the supervisor\'s', () => {
      inUser([...wrssq, ...hlt])
      state.gpr[rdi] = BigInt(place.userShadow - 16)
      state.gpr[0] = 0xabcdn
      assert.equal(w.run(), vector.GP)
      assert.equal(w.read(place.userShadow - 16), 0xabcdn)
      inUser(wrssq, shadowStack)
      assert.equal(w.run(), vector.UD)
      inUser(wrssq)
      state.gpr[rdi] = BigInt(place.userShadow - 12)
      assert.equal(w.run(), vector.GP, 'not aligned')
      inUser(wrussq)
      assert.equal(w.run(), vector.GP)
      supervisor([...wrussq, ...hlt])
      state.gpr[rdi] = BigInt(place.userShadow - 24)
      state.gpr[0] = 0x77n
      assert.equal(w.run(), -1)
      assert.equal(w.read(place.userShadow - 24), 0x77n)
      supervisor(wrussq)
      state.gpr[rdi] = BigInt(place.shadow - 24)
      assert.equal(w.run(), vector.PF)
      assert.equal(w.frame(0), 0x47n, 'as a user')
    })

    test('RSTORSSP goes to a stack with a restore token and leaves the way back, SAVEPREVSSP moves it to the stack left', () => {
      const other = place.otherUserShadow - 8
      inUser([...rstorssp, ...saveprevssp, ...rdsspq, ...hlt])
      w.quad(other, BigInt(place.otherUserShadow) | 1n)
      state.gpr[rdi] = BigInt(other)
      assert.equal(w.run(), vector.GP)
      assert.equal(state.gpr[0], BigInt(place.otherUserShadow))
      assert.equal(w.read(other), BigInt(place.userShadow) | 3n, 'the token of the stack left')
      assert.equal(w.read(place.userShadow - 8), BigInt(place.userShadow) | 1n, 'a restore token there')
      inUser(rstorssp)
      w.quad(other, BigInt(place.otherUserShadow))
      state.gpr[rdi] = BigInt(other)
      assert.equal(w.run(), vector.CP, 'a token of 32-bit code')
      assert.equal(w.frame(0), 4n)
      inUser(saveprevssp)
      state.ssp = BigInt(place.userShadow - 8)
      assert.equal(w.run(), vector.GP, 'no token')
    })

    test('SETSSBSY takes the stack of IA32_PL0_SSP, CLRSSBSY frees one', () => {
      supervisor([...setssbsy, ...hlt])
      state.ssp = 0n
      assert.equal(w.run(), -1)
      assert.equal(state.ssp, BigInt(place.shadow))
      assert.equal(w.read(place.shadow), BigInt(place.shadow) | 1n)
      supervisor([...setssbsy, ...hlt])
      w.quad(place.shadow, BigInt(place.shadow) | 1n)
      state.ssp = BigInt(place.istShadow)
      assert.equal(w.run(), vector.CP)
      assert.equal(w.frame(0), 5n)
      supervisor([...clrssbsy, 0x0f, 0x92, 0xc0, ...hlt]) // setc al
      w.quad(place.istShadow, BigInt(place.istShadow) | 1n)
      state.gpr[rdi] = BigInt(place.istShadow)
      assert.equal(w.run(), -1)
      assert.equal(state.ssp, 0n)
      assert.equal(w.read(place.istShadow), BigInt(place.istShadow))
      assert.equal(state.gpr[0] & 0xffn, 0n)
      supervisor([...clrssbsy, 0x0f, 0x92, 0xc0, ...hlt])
      state.gpr[rdi] = BigInt(place.istShadow)
      assert.equal(w.run(), -1)
      assert.equal(state.gpr[0] & 0xffn, 1n, 'it was free')
    })

    test('an event of the user takes the supervisor\'s stack by its token, and IRET gives it back', () => {
      inUser([...int(0x40), ...hlt])
      w.load(place.handlers + 0x400, iretq)
      assert.equal(w.run(), vector.GP)
      assert.equal(state.ssp, BigInt(place.shadow), 'the second event has it now')
      assert.equal(w.read(place.shadow), BigInt(place.shadow) | 1n)
      inUser(int(0x40))
      w.quad(place.shadow, BigInt(place.shadow) | 1n)
      assert.throws(() => w.run(), /shut down/, 'a busy stack: #GP, #DF and shutdown, for they want it too')
    })

    test('an event of the supervisor pushes CS, LIP and SSP; IRET compares them', () => {
      supervisor([...int(0x40), ...hlt])
      state.ssp = BigInt(place.shadow - 16)
      assert.equal(w.run(), 0x40)
      assert.deepEqual([0, 8, 16].map(i => w.read(place.shadow - 40 + i)), [BigInt(place.shadow - 16), BigInt(place.code + 2), 8n])
      supervisor([...int(0x40), ...hlt])
      state.ssp = BigInt(place.shadow - 16)
      w.load(place.handlers + 0x400, iretq)
      assert.equal(w.run(), -1)
      assert.equal(state.ssp, BigInt(place.shadow - 16))
      supervisor([...int(0x40), ...hlt])
      state.ssp = BigInt(place.shadow - 16)
      w.load(place.handlers + 0x400, [0x48, 0xff, 0x04, 0x24, ...iretq]) // inc qword [rsp]
      assert.equal(w.run(), vector.CP)
      assert.equal(w.frame(0), 2n)
    })

    test('a gate with another stack takes the shadow stack of the table', () => {
      supervisor([...int(istVector), ...hlt])
      assert.equal(w.run(), istVector)
      assert.equal(state.ssp, BigInt(place.istShadow - 24))
      assert.equal(w.read(place.istShadow), BigInt(place.istShadow) | 1n)
      assert.equal(w.read(place.istShadow - 24), BigInt(place.shadow))
      supervisor([...int(istVector), ...hlt])
      w.load(place.handlers + istVector * 16, iretq)
      assert.equal(w.run(), -1)
      assert.equal(state.ssp, BigInt(place.shadow))
      assert.equal(w.read(place.istShadow), BigInt(place.istShadow), 'free again')
    })

    test('SYSCALL puts the user\'s pointer away and leaves none, SYSRET takes it back', () => {
      inUser([...call(1), ...hlt, 0x0f, 0x05, ...rdsspq, ...ret]) // syscall
      w.load(place.code, [0x48, 0x0f, 0x07]) // sysretq
      state.gpr[11] = 2n
      assert.equal(w.run(), vector.GP)
      assert.equal(state.gpr[0], BigInt(place.userShadow - 8))
      inUser([0x0f, 0x05])
      w.load(place.code, hlt)
      assert.equal(w.run(), -1)
      assert.equal(state.ssp, 0n)
      assert.equal(state.msrPlSsp[3], BigInt(place.userShadow))
    })

    test('a far call and its return keep CS, LIP and SSP', () => {
      const far = [0xff, 0x1f] // call far [rdi]
      supervisor([...far, ...hlt])
      w.load(place.plain, [0x00, 0x01, 0x02, 0x00, selector.code, 0])
      w.load(0x20100, [0xcb]) // retf
      state.gpr[rdi] = BigInt(place.plain)
      state.ssp = BigInt(place.shadow - 4)
      assert.equal(w.run(), -1)
      assert.equal(state.ssp, BigInt(place.shadow - 4), 'a hole of four bytes was passed')
      assert.deepEqual([0, 8, 16].map(i => w.read(place.shadow - 32 + i)), [BigInt(place.shadow - 4), BigInt(place.code + 2), 8n])
      supervisor([...far, ...hlt])
      w.load(place.plain, [0x00, 0x01, 0x02, 0x00, selector.code, 0])
      w.load(0x20100, [0xff, 0x04, 0x24, 0xcb]) // inc dword [rsp]
      state.gpr[rdi] = BigInt(place.plain)
      assert.equal(w.run(), vector.CP)
      assert.equal(w.frame(0), 2n)
    })

    test('calls in hot loops do the same', () => {
      // mov ecx, 3000; loop: call f; dec ecx; jnz loop; hlt; f: inc rax; ret
      supervisor([0xb9, 0xb8, 0x0b, 0, 0, ...call(5), 0xff, 0xc9, 0x75, 0xf7, ...hlt, 0x48, 0xff, 0xc0, ...ret])
      assert.equal(w.run(), -1)
      assert.equal(state.gpr[0], 3000n)
      assert.equal(state.ssp, BigInt(place.shadow))
    })
  })
