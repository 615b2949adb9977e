/** The guests of the demonstration: one computes, one uses vector registers, two talk to each other through a device. */
import { mem, type Assembler } from '../assembler.ts'

/** Hypercall: RBX and RCX are what the guest has to say; it is done then. */
const sayAndLeave = 1

/** The longest Collatz chain that begins below `limit`: RBX its steps, RCX where it begins. */
export const collatz = (limit: number) => (a: Assembler): unknown => a
  .mov('rbx', 0).mov('r8', 1).mov('rcx', 1)
  .label('start').mov('rax', 'rcx').mov('rdx', 0)
  .label('step').cmp('rax', 1).if('e', 'end').add('rdx', 1)
  .mov('rsi', 'rax').and('rsi', 1).if('ne', 'odd').shift('shr', 'rax', 1).jmp('step')
  .label('odd').mov('rsi', 'rax').add('rax', 'rax').add('rax', 'rsi').add('rax', 1).jmp('step')
  .label('end').cmp('rdx', 'rbx').if('be', 'next').mov('rbx', 'rdx').mov('r8', 'rcx')
  .label('next').add('rcx', 1).cmp('rcx', limit).if('b', 'start')
  .mov('rcx', 'r8').mov('rax', sayAndLeave).hypercall()

/** 2 to the power of `power`, by doubling XMM0; a while passes between two doublings. */
export const doubling = (power: number) => (a: Assembler): unknown => a
  .mov('rax', 1).mov64ToXmm0('rax').mov('rdx', power)
  .label('double').doubleXmm0().mov('rcx', 5000).label('wait').sub('rcx', 1).if('ne', 'wait').sub('rdx', 1).if('ne', 'double')
  .movXmm0To64('rbx').mov('rcx', power).mov('rax', sayAndLeave).hypercall()

/** Guest-physical address of the device between two guests: what one writes at 0, the other reads at 8 when its interrupt comes. */
export const mailbox = 0x10000000
export const mailVector = 0x30

/** Takes a number out of the mailbox, adds one, sends it back, until it is `last`. The one that serves begins with 0. */
export const player = (serves: boolean, last: number) => (a: Assembler): unknown => {
  a.mov('r12', mailbox).mov('rbx', 0).mov('r13', 0)
  if (serves) a.store(mem('r12', 0), 'rbx')
  return a
    .label('loop').cmp('r13', 0).if('ne', 'got').op('sti', 'hlt', 'cli').jmp('loop')
    .label('got').mov('r13', 0).load('rbx', mem('r12', 8)).cmp('rbx', last).if('ae', 'over').add('rbx', 1).store(mem('r12', 0), 'rbx')
    .cmp('rbx', last).if('b', 'loop')
    .label('over').mov('rcx', 0).mov('rax', sayAndLeave).hypercall()
    .label('mail').mov('r13', 1).op('iretq')
}
