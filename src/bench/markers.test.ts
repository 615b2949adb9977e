/** Phases out of a console as the guest's programs write it. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Markers } from './markers.ts'

test('phases are timed by arrival, in pieces as they come', () => {
  const markers = new Markers(1000)
  markers.see('[ 0.5] noise\r\n@@USERSP', 2900)
  markers.see('ACE uptime=1.0 0.5\r\n', 3000)
  markers.see('@@START sort\r\n', 3100)
  markers.see('@@END sort guest_s=9.999 check=c018\r\n@@START kvm_exits\r\n', 3600)
  markers.see('@@END kvm_exits guest_s=1 io=100 rax=a0 timer_irqs=1\r\n@@DONE\r\n', 3850)
  assert.deepEqual([...markers.phases], [
    ['boot', { seconds: 2, check: '' }], ['sort', { seconds: 0.5, check: 'c018' }], ['kvm_exits', { seconds: 0.25, check: 'a0' }],
  ])
  assert.equal(markers.done, true)
})
