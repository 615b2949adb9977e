/** Both kinds of monitor, against QEMU's documentation ("QEMU Monitor", "QEMU Machine Protocol Specification"). */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { humanMonitor, machineMonitor, type MonitoredRun } from './monitor.ts'

interface Watched { run: MonitoredRun; done: string[] }

function watched(): Watched {
  const done: string[] = []
  const run = {
    cpus: 2, isPaused: false, isQuit: false, date: () => 1500, quit: () => { done.push('quit') },
    hold(held: boolean) {
      run.isPaused = held
      done.push(`hold ${held}`)
    },
    machine: {
      retired: 7, now: 9, describe: (cpu = 0) => `picture of ${cpu}\n`, translate: (linear: bigint) => (linear < 16n ? 32 : undefined),
      readPhysical: (address: number, length: number) => new Uint8Array(length).fill(address),
      pressPowerButton: () => { done.push('power') }, pressReset: () => { done.push('reset') },
    },
  }
  return { run, done }
}
const bytes = (text: string): Uint8Array => new TextEncoder().encode(text)

test('for people: commands, their short forms, memory, and what is wrong', () => {
  const { run, done } = watched()
  let said = ''
  const monitor = humanMonitor(run, text => { said += text })
  const ask = (line: string): string => {
    said = ''
    monitor.take(bytes(line))
    return said
  }
  monitor.greet()
  assert.match(said, /^QEMU .*monitor.*\n\(qemu\) $/)
  assert.equal(ask('info st'), '')
  assert.equal(ask('atus\n'), 'VM status: running\n(qemu) ')
  assert.equal(ask('s\r\n'), '(qemu) ')
  assert.match(ask('info status\n'), /paused/)
  assert.equal(ask('info registers 1\n'), 'picture of 1\n(qemu) ')
  assert.match(ask('info registers 2\n'), /^Error: expected a CPU below 2, found '2'/)
  assert.equal(ask('xp/2xb 0x10\n'), '0000000000000010: 0x10 0x10\n(qemu) ')
  assert.equal(ask('x /1 8\n'), '0000000000000008: 0x20\n(qemu) ')
  assert.match(ask('x /1 99\n'), /Cannot access memory/)
  assert.match(ask('xp\n'), /^Error: expected an address/)
  assert.match(ask('frob\n'), /^unknown command: 'frob'/)
  assert.match(ask('help\n'), /system_powerdown .*ACPI/)
  ask('system_reset\nsystem_powerdown\nc\nq\n')
  assert.deepEqual(done, ['hold true', 'reset', 'power', 'hold false', 'quit'])
})

test('for programs: a greeting, capabilities first, answers with their IDs, events', () => {
  const { run, done } = watched()
  const said: Record<string, unknown>[] = []
  const monitor = machineMonitor(run, text => said.push(JSON.parse(text) as Record<string, unknown>))
  const ask = (command: unknown): Record<string, unknown>[] => {
    said.length = 0
    monitor.take(bytes(`${typeof command === 'string' ? command : JSON.stringify(command)}\r\n`))
    return said
  }
  monitor.greet()
  assert.deepEqual(said[0], { QMP: { version: { qemu: { major: 7, minor: 2, micro: 0 }, package: 'Vitrine' }, capabilities: [] } })
  assert.equal((ask({ execute: 'query-status' })[0].error as { class: string }).class, 'CommandNotFound')
  assert.deepEqual(ask({ execute: 'qmp_capabilities', id: 1 }), [{ id: 1, return: {} }])
  const running = { running: true, singlestep: false, status: 'running' }
  assert.deepEqual(ask({ execute: 'query-status', id: 'a' }), [{ id: 'a', return: running }])
  assert.deepEqual(ask({ execute: 'system_powerdown' }),
    [{ return: {} }, { timestamp: { seconds: 1, microseconds: 500000 }, event: 'POWERDOWN' }])
  assert.deepEqual(ask({ execute: 'stop' }), [{ return: {} }])
  monitor.told('STOP')
  assert.deepEqual(said[1], { timestamp: { seconds: 1, microseconds: 500000 }, event: 'STOP' })
  assert.deepEqual(ask({ execute: 'human-monitor-command', arguments: { 'command-line': 'info status' } }),
    [{ return: 'VM status: paused\r\n' }])
  assert.match(JSON.stringify(ask({ execute: 'blockdev-add' })), /CommandNotFound.*blockdev-add/)
  assert.match(JSON.stringify(ask('{')), /JSON parse error/)
  monitor.told('SHUTDOWN')
  assert.deepEqual(said[1], {
    timestamp: { seconds: 1, microseconds: 500000 }, event: 'SHUTDOWN', data: { guest: true, reason: 'guest-shutdown' },
  })
  assert.deepEqual(done, ['power', 'hold true'])
})
