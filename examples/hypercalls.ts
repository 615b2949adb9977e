/**
 * An interface for guests that know that they are guests: print a letter, tell the time, leave.
 *
 *   npx node examples/hypercalls.ts
 */
import { createVmm } from '../src/hypervisor.ts'
import { createGuest64 } from '../src/vmm/guest64.ts'

const call = { print: 1, time: 2, leave: 3 } as const

export function hypercalls(cpu: 'intel' | 'amd'): { text: string; goesForward: boolean } {
  let text = ''
  const times: number[] = []
  const vmm = createVmm({
    cpu,
    handlers: {
      hypercall: ({ number, arguments: [value] }) => {
        switch (Number(number)) {
          case call.print:
            text += String.fromCharCode(Number(value))
            return { result: 0n }
          case call.time:
            times.push(vmm.now())
            return { result: BigInt(times.at(-1)!) }
          case call.leave: return 'stop'
          default: return 'fault'
        }
      },
    },
  })
  createGuest64(vmm, {
    code: a => {
      a.mov('rax', call.time).hypercall()
      for (const letter of 'hi!') a.mov('rbx', letter.charCodeAt(0)).mov('rax', call.print).hypercall()
      a.mov('rax', call.time).hypercall().mov('rax', call.leave).hypercall()
    },
  })
  vmm.run()
  return { text, goesForward: times[0] < times[1] }
}

if (import.meta.main) for (const cpu of ['intel', 'amd'] as const) console.log(cpu, hypercalls(cpu))
