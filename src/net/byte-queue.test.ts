/** The queue of bytes, beside a plain list of them. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ByteQueue } from './byte-queue.ts'

test('what was pushed is seen in its order, over the borders of pieces and after drops', () => {
  const queue = new ByteQueue()
  let list: number[] = []
  for (const length of [3, 0, 5, 1, 7]) {
    const piece = Uint8Array.from({ length }, (_, index) => list.length + index)
    queue.push(piece)
    list.push(...piece)
  }
  for (const dropped of [0, 1, 2, 5, 8]) {
    queue.drop(dropped)
    list = list.slice(dropped)
    assert.equal(queue.length, list.length)
    for (let offset = 0; offset <= list.length; offset++) {
      for (let count = 0; offset + count <= list.length; count++)
        assert.deepEqual([...queue.peek(offset, count)], list.slice(offset, offset + count))
      assert.throws(() => queue.peek(offset, list.length - offset + 1), RangeError)
    }
  }
})
