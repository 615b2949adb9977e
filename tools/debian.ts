/** Debian's kernels, and initial RAM disks around its busybox, by package name: `npx node tools/debian.ts --help`. */
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { grubDisk } from './debian/grub.ts'
import { benchInit, compile, compileKernel, initramfs, rootInit, shellInit } from './debian/initramfs.ts'
import { DebianError, debianKernel, type Flavour, moduleFiles } from './debian/packages.ts'
import { debianRoot, type RootOptions, smallRoot } from './debian/root.ts'

const help = `\
usage: npx node tools/debian.ts COMMAND [options]

  kernel                    print the path of Debian's kernel image
  initramfs --out FILE      an initial RAM disk with busybox and a shell on the console
  disk --out FILE           a disk image that boots: GRUB, the kernel and such a RAM disk
  root FOLDER               FOLDER/root.img, a Debian system with systemd; FOLDER/vmlinuz and FOLDER/initrd, which start it from /dev/vda
  bench FOLDER              FOLDER/vmlinuz and FOLDER/initramfs.cpio with the benchmark programs

  --flavour cloud|generic   which kernel (default: cloud)
  --out FILE                copy or write to FILE
  --init FILE               initramfs: a script of your own as /init
  --program FILE            initramfs: add a static program to /bin (again for more)
  --package NAME            root: add a Debian package (again for more)
  --megabytes N             root: the size of the image (default: 400)
  --module NAME             initramfs: add a kernel module and what it needs, loaded at start (again for more)

Packages are kept in $VITRINE_CACHE, else in the user's cache folder.
`

/** The kernel and the initial RAM disk with the benchmark programs, as files in a folder. */
export function benchFiles(folder: string, flavour: Flavour = 'cloud'): { kernel: string; initrd: string; programs: { switch: string } } {
  const kernel = debianKernel(flavour)
  const source = (name: string): string => fileURLToPath(new URL(`../test/guests/bench/${name}`, import.meta.url))
  const files = { kernel: join(folder, 'vmlinuz'), initrd: join(folder, 'initramfs.cpio'), programs: { switch: join(folder, 'switch') } }
  mkdirSync(folder, { recursive: true })
  copyFileSync(kernel.image, files.kernel)
  copyFileSync(compileKernel(source('switch.S')), files.programs.switch)
  const programs = ['bench.c', 'knest.c', 'beside.c', 'disk.c'].map(name => compile(source(name)))
  const more = flavour === 'generic' ? ['nvme', 'e1000'] : []
  const modules = moduleFiles(kernel, ['virtio_pci', 'virtio_blk', 'kvm', 'kvm-amd', 'kvm-intel', ...more])
  writeFileSync(files.initrd, initramfs({ init: benchInit, programs, modules }))
  return files
}

/** A Debian system's disk, and what starts it, as files in a folder. */
export function rootFiles(
  folder: string, options: RootOptions = smallRoot, flavour: Flavour = 'cloud',
): Record<'kernel' | 'initrd' | 'image', string> {
  const kernel = debianKernel(flavour)
  const files = { kernel: join(folder, 'vmlinuz'), initrd: join(folder, 'initrd'), image: join(folder, 'root.img') }
  mkdirSync(folder, { recursive: true })
  copyFileSync(kernel.image, files.kernel)
  const fileSystem = flavour === 'generic' ? ['ext4'] : []
  const modules = moduleFiles(kernel, ['virtio_pci', 'virtio_blk', 'virtio_rng', 'virtio_net', 'autofs4', ...fileSystem])
  writeFileSync(files.initrd, initramfs({ init: rootInit, modules }))
  copyFileSync(debianRoot(options), files.image)
  return files
}

function main(args: string[]): void {
  const { values, positionals } = parseArgs({
    args, allowPositionals: true,
    options: {
      help: { type: 'boolean', short: 'h' },
      flavour: { type: 'string', default: 'cloud' },
      out: { type: 'string' },
      init: { type: 'string' },
      program: { type: 'string', multiple: true, default: [] },
      module: { type: 'string', multiple: true, default: [] },
      package: { type: 'string', multiple: true, default: [] },
      megabytes: { type: 'string', default: String(smallRoot.megabytes) },
    },
  })
  const [command, folder] = positionals
  const flavour = values.flavour
  if (values.help || command === undefined) return void process.stdout.write(help)
  if (flavour !== 'cloud' && flavour !== 'generic') throw new DebianError(`--flavour '${flavour}': expected cloud or generic`)
  switch (command) {
    case 'kernel': {
      const { image } = debianKernel(flavour)
      if (values.out !== undefined) copyFileSync(image, values.out)
      return void process.stdout.write(`${values.out ?? image}\n`)
    }
    case 'initramfs': {
      if (values.out === undefined) throw new DebianError('initramfs: expected --out FILE')
      const modules = values.module.length > 0 ? moduleFiles(debianKernel(flavour), values.module) : []
      const init = values.init === undefined ? shellInit : readFileSync(values.init, 'utf8')
      writeFileSync(values.out, initramfs({ init, programs: values.program, modules }))
      return void process.stdout.write(`${values.out}\n`)
    }
    case 'disk': {
      if (values.out === undefined) throw new DebianError('disk: expected --out FILE')
      const kernel = debianKernel(flavour)
      const init = values.init === undefined ? shellInit : readFileSync(values.init, 'utf8')
      const modules = values.module.length > 0 ? moduleFiles(kernel, values.module) : []
      const initrd = initramfs({ init, programs: values.program, modules })
      const commands = ['linux /boot/vmlinuz console=ttyS0', 'initrd /boot/initrd']
      const files = { 'boot/vmlinuz': readFileSync(kernel.image), 'boot/initrd': initrd }
      grubDisk(values.out, { files, menu: [{ title: 'Debian', commands }] })
      return void process.stdout.write(`${values.out}\n`)
    }
    case 'root': {
      if (folder === undefined) throw new DebianError('root: expected a folder')
      const megabytes = Number(values.megabytes)
      if (!Number.isInteger(megabytes) || megabytes < 1) throw new DebianError(`--megabytes '${values.megabytes}': expected a number`)
      const files = rootFiles(folder, { packages: [...smallRoot.packages, ...values.package], megabytes }, flavour)
      return void process.stdout.write(`${Object.values(files).join('\n')}\n`)
    }
    case 'bench': {
      if (folder === undefined) throw new DebianError('bench: expected a folder')
      const { kernel, initrd } = benchFiles(folder, flavour)
      return void process.stdout.write(`${kernel}\n${initrd}\n`)
    }
    default: throw new DebianError(`unknown command '${command}': expected kernel, initramfs, disk, root or bench`)
  }
}

if (import.meta.main) {
  try {
    main(process.argv.slice(2))
  } catch (error) {
    const { name, code, message } = error as Error & { code?: string }
    if (name !== 'DebianError' && !code?.startsWith('ERR_PARSE_ARGS')) throw error
    process.stderr.write(`debian: ${message}\n`)
    process.exitCode = 2
  }
}
