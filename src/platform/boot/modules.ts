/** Files that go with a kernel: Linux's initial RAM disk, or multiboot and PVH modules. */
import { BootError } from './image.ts'

export interface BootModule {
  bytes: Uint8Array
  /** The file's name as the user gave it. */
  name: string
  /** What the kernel is told about it, without the name. */
  arguments: string
}

/** Name and arguments as one line, as QEMU and GRUB 1 give it. */
export const namedLine = ({ name, arguments: text }: Pick<BootModule, 'name' | 'arguments'>): string => (text ? `${name} ${text}` : name)

/** For protocols with room for one RAM disk. */
export function onlyModule(modules: readonly BootModule[]): Uint8Array | undefined {
  if (modules.length > 1) throw new BootError(`initrd: expected one file for this kernel, found ${modules.length}`)
  return modules[0]?.bytes
}
