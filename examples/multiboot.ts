/** What the hypervisors with one mistake share: their kernels' multiboot header, bytes of 32-bit code. Multiboot Specification 0.6.96. */

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

/** The mistake of this name. */
export function chosenMistake<T>(mistakes: Readonly<Record<string, T>>, name: string): T {
  const chosen = mistakes[name]
  if (!chosen) throw new Error(`expected one of ${Object.keys(mistakes).join(', ')}; found '${name}'`)
  return chosen
}
