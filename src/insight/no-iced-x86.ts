/** Stands in for the iced-x86 package in browsers, where that cannot be loaded (it reads a file): then nothing is disassembled. */
export const Decoder = undefined
export const Formatter = undefined
export const InstructionInfoFactory = undefined
export const FormatterSyntax = {}
export const MemorySizeExt = {}
export const Mnemonic = {}
export const OpAccess = {}
export const Register = {}
export const RflagsBits = {}
