/** What the hypervisors with one mistake share: their kernels' multiboot header, bytes of 32-bit code. Multiboot Specification 0.6.96. */

import { relative } from 'node:path'

/** Where the kernels are loaded. */
export const origin = 0x100000

export const dword = (value: number): number[] => [value & 0xff, (value >>> 8) & 0xff, (value >>> 16) & 0xff, value >>> 24]
/** The address of an offset in the image. */
export const address = (offset: number): number[] => dword(origin + offset)

/** mov edx, COM1; mov al, letter; out dx, al */
export const print = (letter: string): number[] => [0xba, ...dword(0x3f8), 0xb0, letter.charCodeAt(0), 0xee]

type Part = readonly [at: number, bytes: readonly number[]]
/** An image with a header that says where it goes and starts; parts are bytes at their offsets. */
export function multibootImage(entry: number, end: number, parts: readonly Part[]): Uint8Array {
  const image = new Uint8Array(end)
  const magic = 0x1badb002
  const flags = 0x10000
  image.set([magic, flags, -(magic + flags) >>> 0, origin, origin, origin + end, 0, origin + entry].flatMap(dword))
  for (const [at, bytes] of parts) image.set(bytes, at)
  return image
}

/** Writes the kernel with the mistake that the command line names to standard output, which goes into a file. */
export function printKernel(mistakes: Readonly<Record<string, unknown>>, make: (mistake: string) => Uint8Array): void {
  const [, program, mistake = 'none'] = process.argv
  const usage = `npx node ${relative('.', program)} MISTAKE > kernel, where MISTAKE is one of ${Object.keys(mistakes).join(', ')}`
  if (process.stdout.isTTY || !Object.hasOwn(mistakes, mistake)) {
    process.stderr.write(`expected ${usage}\n`)
    process.exitCode = 2
  } else process.stdout.write(make(mistake))
}
