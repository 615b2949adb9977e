/** The reference of the public library is what the source says now, and leaves nothing that is exported without a word. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { test } from 'node:test'
import { documentation } from '../../tools/docs.ts'

const folder = fileURLToPath(new URL('../../docs/api/', import.meta.url))

test('docs/api is what npm run docs writes, and every export has a comment, every name a declaration', () => {
  const { pages, silent, unknown } = documentation()
  assert.deepEqual(silent, [])
  assert.deepEqual(unknown, [])
  for (const [name, text] of pages) assert.ok(readFileSync(join(folder, name), 'utf8') === text, `docs/api/${name} is stale: npm run docs`)
})
