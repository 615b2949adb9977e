/**
 * Handlers that stand inline in the interpreter's main function: the forms that Debian's kernel and the benchmark programs execute most,
 * by key (code-cache.ts, `specOf`). Measured with tools/hot.ts; a key that no longer exists is an error.
 */
export const hotKeys: readonly string[] = [
  'MOV gpr64A,immediate64',
  'ADD gpr64A,immediate64',
  'XOR gpr64A,gpr64B',
  'LEA gpr64A,memory0',
  'SUB gpr64A,gpr64B',
  'MOV base64,gpr64B',
  'MOV gpr64A,base64',
  'PUSH o64 wide gpr64A',
  'CALL o64 wide relative',
  'RET o64 wide',
  'POP o64 wide gpr64A',
  'INC gpr64A',
  'TEST gpr64A,gpr64B',
  'JNZ o64 wide relative',
]
