/** Debian's generic kernel: its 9p client on our shared folders, trees there and back, and its AHCI driver on a SATA disk. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync, statSync, symlinkSync, truncateSync, writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { initramfs } from '../../tools/debian/initramfs.ts'
import { debianKernel, moduleFiles } from '../../tools/debian/packages.ts'
import { busybox, runCommand } from './linux.ts'

const folder = mkdtempSync(join(tmpdir(), 'vitrine-share-'))
after(() => rmSync(folder, { recursive: true }))

const digest = (data: Uint8Array): string => createHash('sha256').update(data).digest('hex')
const names = Array.from({ length: 1000 }, (_, i) => `file ${i}`)

/** Run with `sh -e`: the last line is reached when each one did what it should. */
const script = `
refused() { if "$@" 2>/dev/null; then echo "this was not refused: $*"; exit 1; fi; }
mount -t 9p -o trans=virtio,version=9p2000.L ours /mnt
cd /mnt
[ "$(cat below/down/note)" = 'from outside' ]
[ "$(sha256sum <data)" = "$DIGEST  -" ]
[ $(ls many | wc -l) = 1000 ]; [ $(cat many/* | sort -u | wc -l) = 1000 ]
dd if=/bin/busybox of=copy bs=3000 2>/dev/null; cmp copy /bin/busybox; sync; dd if=copy bs=1M 2>/dev/null | cmp - /bin/busybox
mkdir -p tree/a/b; for i in $(seq 100); do echo $i >tree/a/b/$i; done; cp -a tree tree2; diff -r tree tree2
mv tree2/a/b tree2/moved; [ "$(cat tree2/moved/77)" = 77 ]; [ ! -e tree2/a/b ]
mv tree2/moved/1 tree2/moved/2; [ "$(cat tree2/moved/2)" = 1 ]
ln -s ../data tree/link; [ "$(readlink tree/link)" = ../data ]; cmp tree/link data
ln data hard; [ $(stat -c %h data) = 2 ]; rm hard
echo more >>tree/a/b/1; [ "$(cat tree/a/b/1)" = "1
more" ]; echo no >tree/a/b/1; [ "$(cat tree/a/b/1)" = no ]
chmod 640 tree/a/b/1; [ $(stat -c %a tree/a/b/1) = 640 ]; touch -d @1000000000 tree/a/b/1; [ $(stat -c %Y tree/a/b/1) = 1000000000 ]
exec 5>open; echo unlinked >&5; exec 6<open; rm open; [ "$(cat <&6)" = unlinked ]; exec 5>&- 6<&-
mkdir /sata; mount -t ext4 /dev/sda /sata; cp -a tree2 many copy /sata; umount /sata; mount /dev/sda /sata
diff -r tree2 /sata/tree2; diff -r many /sata/many; cmp copy /sata/copy; umount /sata
rm -r tree2; [ ! -e tree2 ]; refused rmdir tree; refused mkdir tree; refused mknod null c 1 3
# The link is there; where it leads is the guest's own /etc, which has no such file.
[ "$(readlink escape)" = /etc/hostname ]; refused cat escape
df /mnt | grep -q ours
cd /; umount /mnt
mount -t 9p -o trans=virtio,version=9p2000.L,ro look /mnt; [ "$(cat /mnt/note)" = 'from outside' ]; umount /mnt
mount -t 9p -o trans=virtio,version=9p2000.L look /mnt; refused touch /mnt/note; refused rm /mnt/note; refused mkdir /mnt/x
refused cp /script /mnt/note; umount /mnt
echo all of it was done
`

test('Linux reads and writes shared folders and a SATA disk', () => {
  const kernel = debianKernel('generic')
  const [shared, readOnly] = [join(folder, 'ours'), join(folder, 'other')]
  const disk = join(folder, 'disk')
  writeFileSync(disk, '')
  truncateSync(disk, 32 << 20)
  assert.equal(spawnSync('mke2fs', ['-q', '-t', 'ext4', disk]).status, 0)
  const data = Uint8Array.from({ length: 3_000_001 }, (_, i) => Math.imul(i ^ (i >>> 9), 0x9e3779b1) >>> 24)
  for (const each of [readOnly, join(shared, 'below/down'), join(shared, 'many')]) mkdirSync(each, { recursive: true })
  for (const each of [join(readOnly, 'note'), join(shared, 'below/down/note')]) writeFileSync(each, 'from outside')
  writeFileSync(join(shared, 'data'), data)
  writeFileSync(join(folder, 'secret'), 'not shared')
  symlinkSync('/etc/hostname', join(shared, 'escape'))
  for (const name of names) writeFileSync(join(shared, 'many', name), `${name}\n`)
  const init = `#!/bin/sh
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs dev /dev; mkdir -p /mnt
for module in $(cat /mod/order); do insmod /mod/$module; done
DIGEST=${digest(data)} sh -ex /script; poweroff -f
`
  const modules = moduleFiles(kernel, ['virtio_pci', '9pnet_virtio', '9p', 'ahci', 'sd_mod', 'ext4', 'crc32c_generic'])
  const { console, status, errors } = runCommand([
    '--kernel', kernel.image, '--append', 'console=ttyS0 quiet', '--memory', '256M', '--share', shared,
    '--drive', `${disk},if=sata,format=raw`, '--share', `${readOnly},tag=look,readonly`,
  ], '', initramfs({ init, modules, files: { script } }))
  assert.equal(status, 0, errors + console.slice(-2000))
  assert.match(console, /^all of it was done$/m)
  const check = spawnSync('e2fsck', ['-f', '-n', disk], { encoding: 'utf8' })
  assert.equal(check.status, 0, check.stdout + check.stderr)
  assert.equal(digest(readFileSync(join(shared, 'copy'))), digest(busybox()))
  assert.deepEqual(readdirSync(join(shared, 'tree/a/b')).sort(), Array.from({ length: 100 }, (_, i) => String(i + 1)).sort())
  assert.equal(readlinkSync(join(shared, 'tree/link')), '../data')
  assert.equal(statSync(join(shared, 'tree/a/b/1')).mode & 0o777, 0o640)
  assert.equal(readFileSync(join(shared, 'tree/a/b/1'), 'utf8'), 'no\n')
  assert.ok(!existsSync(join(shared, 'tree2')))
  assert.equal(readFileSync(join(readOnly, 'note'), 'utf8'), 'from outside')
})
