/** Disk and disc images that Debian's GRUB starts from a BIOS, with files and a menu of the caller's. */
import { execFileSync } from 'node:child_process'
import { closeSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, truncateSync, writeFileSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { DebianError, packageFolder } from './packages.ts'

const sector = 512
const MiB = 1 << 20
/** The first partition begins here; GRUB's image lies in the gap before it. */
const partitionSector = 2048
const modules = [
  'biosdisk', 'part_msdos', 'ext2', 'iso9660', 'normal', 'configfile', 'linux', 'multiboot', 'multiboot2', 'serial', 'terminal',
]
/** Before the partition table. The boot sector's own block list says that GRUB's image begins in the second sector. */
const bootCodeSize = 440

export interface GrubFiles {
  /** Paths such as `boot/vmlinuz`, and what is in them. */
  files: Readonly<Record<string, Uint8Array>>
  /** Entries of the menu: the first one is started at once. All is shown on the first serial port. */
  menu: readonly { title: string; commands: readonly string[] }[]
}

/** A disk of one ext4 partition with the files, and GRUB in front of it. Written to `image`. */
export function grubDisk(image: string, content: GrubFiles): void {
  withFolder(folder => {
    const tree = plant(folder, content)
    const core = coreImage(folder, 'i386-pc', '(hd0,msdos1)/boot/grub')
    const used = Object.values(content.files).reduce((sum, { length }) => sum + length, 0)
    const megabytes = Math.ceil(used / MiB * 1.1) + 16
    writeFileSync(image, '')
    truncateSync(image, partitionSector * sector + megabytes * MiB)
    // No journal and a fixed identity: the image is small, and the same each time.
    run('mke2fs', [
      '-q', '-t', 'ext4', '-O', '^has_journal', '-U', '56495452-494e-4547-8000-000000000000', '-d', tree,
      '-E', `offset=${partitionSector * sector},hash_seed=56495452-494e-4547-8000-000000000001`, image, `${megabytes}M`,
    ])
    writeBootSectors(image, readFileSync(join(grubFolder(), 'boot.img')), core, megabytes * MiB / sector)
  })
}

function writeBootSectors(image: string, bootSector: Uint8Array, core: Uint8Array, partitionSectors: number): void {
  const room = (partitionSector - 1) * sector
  if (core.length > room) throw new DebianError(`GRUB's image of ${core.length} bytes does not fit in ${room} before the partition`)
  const first = new Uint8Array(sector)
  first.set(bootSector.subarray(0, bootCodeSize))
  const view = new DataView(first.buffer)
  const entry = 446
  first[entry] = 0x80
  first[entry + 4] = 0x83 // Linux
  view.setUint32(entry + 8, partitionSector, true)
  view.setUint32(entry + 12, partitionSectors, true)
  view.setUint16(510, 0xaa55, true)
  const file = openSync(image, 'r+')
  writeSync(file, first, 0, sector, 0)
  writeSync(file, core, 0, core.length, sector)
  closeSync(file)
}

/** An ISO 9660 disc with the files, started without emulation of a disk ("El Torito"). */
export function grubDisc(image: string, content: GrubFiles): void {
  withFolder(folder => {
    const tree = plant(folder, content)
    writeFileSync(join(tree, 'boot/grub/eltorito.img'), coreImage(folder, 'i386-pc-eltorito', '(cd)/boot/grub'))
    run('xorriso', [
      '-as', 'mkisofs', '-quiet', '-R', '-b', 'boot/grub/eltorito.img', '-no-emul-boot', '-boot-load-size', '4', '-boot-info-table',
      '--grub2-boot-info', '-o', image, tree,
    ])
  })
}

function plant(folder: string, { files, menu }: GrubFiles): string {
  const tree = join(folder, 'tree')
  const entries = menu.map(({ title, commands }) => `menuentry "${title}" {\n${commands.map(line => `  ${line}\n`).join('')}}\n`)
  const config = `serial --unit=0 --speed=115200\nterminal_input serial\nterminal_output serial\nset timeout=0\n${entries.join('')}`
  for (const [path, bytes] of Object.entries({ ...files, 'boot/grub/grub.cfg': new TextEncoder().encode(config) })) {
    mkdirSync(dirname(join(tree, path)), { recursive: true })
    writeFileSync(join(tree, path), bytes)
  }
  return tree
}

function coreImage(folder: string, format: string, prefix: string): Uint8Array {
  const out = join(folder, 'core.img')
  run('grub-mkimage', ['-d', grubFolder(), '-O', format, '-o', out, '-p', prefix, ...modules])
  return readFileSync(out)
}

const grubFolder = (): string => join(packageFolder('grub-pc-bin'), 'usr/lib/grub/i386-pc')

function withFolder(use: (folder: string) => void): void {
  const folder = mkdtempSync(join(tmpdir(), 'vitrine-grub-'))
  try {
    use(folder)
  } finally {
    rmSync(folder, { recursive: true })
  }
}

function run(program: string, args: string[]): void {
  try {
    execFileSync(program, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] })
  } catch (error) {
    const { code, stderr } = error as { code?: string; stderr?: string }
    if (code === 'ENOENT') throw new DebianError(`${program} is missing: apt install grub-common xorriso e2fsprogs`)
    throw new DebianError(`${program} ${args.join(' ')} failed: ${(stderr ?? String(error)).trim()}`)
  }
}
