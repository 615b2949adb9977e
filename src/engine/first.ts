/**
 * Handlers that the start of a 64-bit kernel needs before the thread that compiles has those of warm.ts ready, in the order in which
 * Debian's kernel asks for them.
 */
export const firstKeys: readonly string[] = [
  'CLD',
  'CLI',
  'MOV Sreg o32 wide segment16A,gpr16B',
  'ADD base64,gpr64B',
  'LGDT o32 base0',
  'RETF o64',
  'OR gpr32A,immediate32',
  'MOVS o64',
  'MOVSB',
  'LIDT o32 base0',
  'CPUID o32',
  'MOV CR/DR o64 gpr64A,control64B',
  'MOV CR/DR o64 control64A,gpr64B',
  'CMP gpr8A,gpr8B',
  'SETNBE gpr8A',
  'POPF o64',
  'STD',
  'JMP o64 wide gpr64A',
]
