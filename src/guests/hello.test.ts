/** The guest's bytes against GNU as. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { helloGuest } from './hello.ts'

test('the bytes are what hello.S assembles to', () => {
  const folder = mkdtempSync(join(tmpdir(), 'vitrine-'))
  try {
    const [object, binary] = [join(folder, 'hello.o'), join(folder, 'hello.bin')]
    execFileSync('as', ['--32', '-o', object, fileURLToPath(new URL('hello.S', import.meta.url))])
    execFileSync('ld', ['-m', 'elf_i386', `-Ttext=0x${helloGuest.at.toString(16)}`, '--oformat', 'binary', '-o', binary, object])
    assert.deepEqual(Buffer.from(helloGuest.image), readFileSync(binary))
  } finally {
    rmSync(folder, { recursive: true })
  }
})
