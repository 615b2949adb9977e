/** Threads that work for the one that runs the machine let it go first. Expectations: proc(5), "/proc/pid/stat", field 19. */
import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { availableParallelism, getPriority } from 'node:os'
import { test } from 'node:test'
import { Worker } from 'node:worker_threads'
import { preferThisThread } from './thread-priority.ts'

const linux = process.platform === 'linux'

/** Name and nice value of each thread of this process. */
function threads(): { name: string; nice: number }[] {
  if (!linux) return []
  return readdirSync('/proc/self/task').map(thread => {
    const text = readFileSync(`/proc/self/task/${thread}/stat`, 'utf8')
    const [name, rest] = [text.slice(text.indexOf('(') + 1, text.lastIndexOf(')')), text.slice(text.lastIndexOf(')') + 2)]
    return { name, nice: Number(rest.split(' ')[16]) }
  })
}

/** A third of the only processor, a tenth of one of several: sched(7), "The nice value". */
const steps = availableParallelism() === 1 ? 5 : 10

test("V8's threads and those that step back come after the one that runs the machine", async () => {
  const own = getPriority(0)
  preferThisThread()
  const module = JSON.stringify(new URL('./thread-priority.ts', import.meta.url).href)
  const text = `const { parentPort } = require('node:worker_threads')
    import(${module}).then(({ stepBack }) => { stepBack(); parentPort.postMessage(require('node:os').getPriority(0)) })`
  const worker = new Worker(text, { eval: true })
  const stepped = await new Promise(resolve => { worker.once('message', resolve) })
  await worker.terminate()
  assert.equal(getPriority(0), own)
  assert.equal(stepped, linux ? Math.min(own + steps, 19) : own)
  const helpers = threads().filter(({ name }) => name.includes('V8Worker'))
  assert.equal(helpers.length > 0, linux)
  for (const { nice } of helpers) assert.equal(nice, Math.min(own + steps, 19))
})
