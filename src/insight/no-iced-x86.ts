/** Stands in for the iced-x86 package in browsers, where that cannot be loaded (it reads a file): then nothing is disassembled. */
export const load = (): undefined => undefined
