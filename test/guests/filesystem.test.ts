/** Linux fills file systems on our disks, resets the machine and finds them again; e2fsck, outside, finds nothing wrong with them. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { initramfs } from '../../tools/debian/initramfs.ts'
import { debianKernel, moduleFiles } from '../../tools/debian/packages.ts'
import { runCommand } from './linux.ts'

const folder = mkdtempSync(join(tmpdir(), 'vitrine-filesystem-'))
after(() => rmSync(folder, { recursive: true }))

const init = `#!/bin/sh
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs dev /dev
for module in $(cat /mod/order); do insmod /mod/$module; done
mkdir /a /b /c
mount -t ext4 -o discard /dev/vda /a || exec sh
mount -t ext4 -o discard /dev/nvme0n1 /c || exec sh
if [ -e /a/sums ]; then
  cd /a; md5sum -c sums && echo found again; cd /c; md5sum -c sums && echo found on nvme; cd /
  umount /a; umount /c; poweroff -f
fi
mke2fs /dev/vdb >/dev/null; mount -t ext2 /dev/vdb /b
for disk in a b c; do
  i=0; while [ $i -lt 200 ]; do mkdir -p /$disk/d$((i % 7)); head -c $((i * 401)) /bin/busybox > /$disk/d$((i % 7))/f$i; i=$((i + 1)); done
  rm /$disk/d3/*; cp /bin/busybox /$disk/d3/copy; ln -s copy /$disk/d3/link
done
fstrim /a; fstrim /c
for disk in a c; do cd /$disk; find . -type f ! -name sums | xargs md5sum > sums; cd /; done
umount /a; umount /b; umount /c; reboot -f
`

test('ext4 and ext2 on virtio, ext4 on NVMe, with two processors, discards and a restart', () => {
  const kernel = debianKernel('cloud')
  const files = ['a', 'b', 'c'].map(name => join(folder, name))
  const [first, second, third] = files
  for (const file of files) {
    writeFileSync(file, '')
    truncateSync(file, 48 << 20)
  }
  for (const file of [first, third]) assert.equal(spawnSync('mke2fs', ['-q', '-t', 'ext4', file]).status, 0)
  const disk = initramfs({ init, modules: moduleFiles(kernel, ['virtio_pci', 'virtio_blk']) })
  const { status, console, errors } = runCommand([
    '--kernel', kernel.image, '--append', 'console=ttyS0', '--memory', '256M', '--smp', '2',
    '--drive', `${first},format=raw`, '--device', 'virtio-blk-pci,drive=b,num-queues=2', '--drive', `${second},format=raw,if=none,id=b`,
    '--drive', `${third},format=raw,if=nvme`,
  ], '', disk)
  assert.equal(status, 0, errors + console.slice(-2000))
  assert.match(console, /^found again$/m)
  assert.match(console, /^found on nvme$/m)
  assert.equal(console.match(/Linux version/g)?.length, 2)
  assert.doesNotMatch(console, /I\/O error|EXT[24]-fs (error|warning)|FAILED/)
  for (const file of files) {
    const check = spawnSync('e2fsck', ['-f', '-n', file], { encoding: 'utf8' })
    assert.equal(check.status, 0, check.stdout + check.stderr)
  }
})
