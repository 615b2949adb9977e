/** The snippets of docs/VMM.md run as they stand, and print what they say. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('../../', import.meta.url))
const snippets = [...readFileSync(join(root, 'docs/VMM.md'), 'utf8').matchAll(/```ts\n([^]*?)```/g)].map(match => match[1])

test('the snippets of docs/VMM.md run', () => {
  const folder = mkdtempSync(join(root, 'docs/snippets-'))
  try {
    const printed = snippets.map((text, i) => {
      const file = join(folder, `snippet-${i}.ts`)
      writeFileSync(file, text)
      const { stdout, stderr, status } = spawnSync(process.execPath, [file], { encoding: 'utf8' })
      assert.equal(status, 0, stderr)
      return stdout
    })
    assert.match(printed[0], /exit 'cpuid'[^]*exit 'portWrite' \(port 0x10, size 0x1, value 0x48\)[^]*exit 'halt'/)
    assert.equal(printed[1], '16 72\ndone\n')
  } finally {
    rmSync(folder, { recursive: true })
  }
})
