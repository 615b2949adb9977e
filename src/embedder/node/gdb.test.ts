/** Where GDB cannot be waited for: said in words, as people wrote the address. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer, type AddressInfo } from 'node:net'
import { test } from 'node:test'
import type { Machine } from '../../api.ts'
import type { Session } from '../session.ts'
import { serveGdb } from './gdb.ts'

test('a folder that is not there, and a port that somebody has', async () => {
  const serve = (address: Parameters<typeof serveGdb>[0]['address']): Promise<unknown> =>
    serveGdb({ address, wait: true }, {} as Machine, 1, {} as Session)
  await assert.rejects(serve({ path: '/nowhere/at/all' }), /^InputError: GDB: cannot listen at \/nowhere\/at\/all: /)
  const other = createServer().listen(0, '127.0.0.1')
  await once(other, 'listening')
  const { port } = other.address() as AddressInfo
  await assert.rejects(serve({ host: '127.0.0.1', port }), /cannot listen at 127\.0\.0\.1:\d+: it is taken$/)
  other.close()
})
