/** Assembler text to machine code, through GNU as and objcopy. */
import { execFileSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { CODE } from '../../test/vectors/state.ts'
import type { Mode } from '../../test/vectors/state.ts'

const SLOT = 32

/**
 * Assembles each text by itself. `rel(ADDRESS)` in a text is a RIP-relative operand for code placed at CODE; `.` is the
 * start of the instruction. Throws with the assembler's message, which names the text.
 */
export function assemble(texts: { text: string; mode: Mode }[], folder: string): Uint8Array[] {
  const lines = ['.text', '.org 0']
  texts.forEach(({ text, mode }, i) => {
    const body = text.replace(/rel\((0x[0-9a-f]+)\)/g, (_, address: string) => `f${i} + (${Number(address) - CODE})(%rip)`)
    lines.push(`.code${mode}`, `.org ${i * SLOT}, 0xcc`, `f${i}: ${body} # ${text}`, `e${i}:`)
  })
  lines.push(`.org ${texts.length * SLOT}, 0xcc`, '.data')
  texts.forEach((_, i) => lines.push(`.byte e${i} - f${i}`))
  const source = join(folder, 'forms.s')
  const object = join(folder, 'forms.o')
  writeFileSync(source, lines.join('\n') + '\n')
  try {
    execFileSync('as', ['--64', '-o', object, source], { stdio: ['ignore', 'ignore', 'pipe'] })
  } catch (error) {
    throw new Error(explain(String((error as { stderr?: Buffer }).stderr), lines), { cause: error })
  }
  const section = (name: string): Buffer => {
    const file = join(folder, 'forms' + name)
    execFileSync('objcopy', ['-O', 'binary', '-j', name, object, file])
    return readFileSync(file)
  }
  const code = section('.text')
  const lengths = section('.data')
  return texts.map((_, i) => new Uint8Array(code.subarray(i * SLOT, i * SLOT + lengths[i])))
}

function explain(message: string, lines: string[]): string {
  return message
    .split('\n')
    .slice(0, 12)
    .map((line) => line.replace(/^.*?:(\d+): /, (_, n: string) => `${lines[Number(n) - 1]}: `))
    .join('\n')
}
