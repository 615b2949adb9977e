/** Symbols as nm prints them of a program that the machine's compiler made, and as the kernel shows them. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { readSymbols } from './symbols.ts'

test('an address belongs to the last symbol at or below it', () => {
  const lines = ['ffffffff81000000 T _text', 'ffffffff81000100 t helper\t[module]', '0000000000000000 A zero', '']
  const symbols = readSymbols(Buffer.from(lines.join('\n')), 'map')
  assert.equal(symbols.size, 2)
  assert.deepEqual(symbols.at(0xffffffff810000ffn), { name: '_text', offset: 0xffn })
  assert.deepEqual(symbols.at(0xffffffff81000100n), { name: 'helper', offset: 0n })
  assert.equal(symbols.at(0x1000n), undefined)
})

test("an ELF file's functions are where nm says", () => {
  const folder = mkdtempSync(join(tmpdir(), 'vitrine-symbols-'))
  try {
    const [source, program] = [join(folder, 'a.c'), join(folder, 'a')]
    writeFileSync(source, 'static int inner(int x) { return x * 3; }\nint (*volatile f)(int) = inner;\nint main(void) { return f(2); }\n')
    execFileSync('gcc', ['-O0', '-static', '-o', program, source])
    const symbols = readSymbols(readFileSync(program), program)
    for (const name of ['inner', 'main', '_start']) {
      const line = execFileSync('nm', [program], { encoding: 'utf8' }).split('\n').find(each => each.endsWith(` ${name}`))!
      const found = symbols.at(BigInt(`0x${line.slice(0, 16)}`))!
      assert.deepEqual(found, { name, offset: 0n })
    }
    const cut = readFileSync(program).subarray(0, 0x200)
    assert.throws(() => readSymbols(cut, 'cut'), /symbols 'cut': expected/)
  } finally {
    rmSync(folder, { recursive: true })
  }
})

test('what holds no symbols is the user\'s to mend', () => {
  assert.throws(() => readSymbols(Buffer.from('hello\n'), 'x'), /symbols 'x': expected lines of address, type and name.*found none/)
})
