/** A guest that resets its board is taken apart and made anew, and leaves nothing behind. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createVmm } from '../../src/hypervisor.ts'
import { Board } from '../../src/vmm/board/board.ts'
import { wander } from '../../src/vmm/wander.ts'
import { multibootImage } from '../journeys/multiboot.ts'

/** R to the serial port, 6 to the reset control register. */
const kernel = multibootImage([
  0x66, 0xba, 0xf8, 0x03, 0xb0, 0x52, 0xee, // mov dx, 0x3f8; mov al, 'R'; out dx, al
  0x66, 0xba, 0xf9, 0x0c, 0xb0, 0x06, 0xee, // mov dx, 0xcf9; mov al, 6; out dx, al
  0xf4, 0xeb, 0xfd, // hlt; jmp back
])

for (const cpu of ['intel', 'amd'] as const) {
  for (const paging of ['nested', 'shadow'] as const) {
    test(`a guest that resets itself starts again, as often as it likes, ${cpu}, ${paging} paging`, () => {
      const vmm = createVmm({ cpu, cpus: 2, paging })
      let text = ''
      const used: number[] = []
      const start = (): void => {
        const board = new Board(vmm, { name: 'guest', memory: 4 << 20, vcpus: 2, kernel })
        board.onSerial = byte => void (text += String.fromCharCode(byte))
        board.onEnd = ending => {
          assert.equal(ending, 'reset')
          vmm.destroyGuest(board.guest, () => {
            used.push(vmm.pool.used)
            if (used.length < 4) start()
          })
        }
      }
      start()
      wander(vmm, 7000)
      assert.equal(vmm.run().kind, 'done')
      assert.equal(text, 'RRRR')
      assert.deepEqual([vmm.guests, vmm.vcpus], [[], []])
      assert.deepEqual(used, Array(4).fill(used[0]))
    })
  }
}
