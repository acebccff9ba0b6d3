#!/usr/bin/env bash
# Trains the weights in the package once more, from the root of the repository: bash scripts/train_bundled.sh NAME DATA [OUTPUT]
# NAME is emoji, denoise-color, denoise-gray, derain or motion-deblur, DATA the folder of the emoji or of BSDS500's photographs
# (with train and test in it), OUTPUT a new folder for the runs (runs/bundled/NAME). It ends with OUTPUT/NAME.safetensors, of the
# emoji with the weights in the package replaced. PRECISION=no in front trains without bf16, which is many times faster on CPUs
# that lack AVX-512. Runs that ended early by hand are noted with the step; here they go on to theirs.
set -euo pipefail
[[ $# -eq 2 || $# -eq 3 ]] || { sed -n '2,6s/^# //p' "$0" >&2; exit 2; }
name=$1 data=$2 output=${3:-runs/bundled/$1}
precision=${PRECISION:-bf16}

export OMP_NUM_THREADS=${OMP_NUM_THREADS:-2} ACCELERATE_USE_CPU=${ACCELERATE_USE_CPU:-true}
small="--precision $precision --hold-out 40 --clip 1.0 --weight-decay 0 --betas 0.9 0.99 --workers 0"
photographs="$data/train $data/test"

train() { # run, further flags
  accelerate launch train.py $small --output "$output/$1" "${@:2}"
}

emoji() {
  python scripts/train_autoencoder.py --data-path "$data" --output "$output/autoencoder" --precision $precision --compile
  python scripts/bundle_emoji.py latents --vae "$output/autoencoder/vae" --data-path "$data" --replace
  # the first run began from the weights of an earlier one, 5,000 steps on the latents of another autoencoder
  accelerate launch train.py --model IPTV2-Ti-16 --micro-batch 32 --precision $precision --output "$output/1"
  accelerate launch train.py --model IPTV2-Ti-16 --micro-batch 32 --precision $precision --init "$output/1" --steps 7000 --validate-every 500 \
    --output "$output/2"
  python scripts/bundle_emoji.py denoiser --checkpoint "$output/2" --replace
}

denoise-color() { # run 1 was cut in two at step 1,157, and ended at 9,957
  color() { train "$1" --task denoise-color --sigma 0-55 --model IPTV2-Lite --data-path $photographs "${@:2}"; }
  color 1 --stages 0:64x16 6700:128x4 8800:192x2 --steps 10000 --lr 1e-3 --lr-final 1e-6 --warmup-steps 200 --ema 0.999 \
    --validate-every 3000
  color 2 --init "$output/1" --stages 0:128x4 3600:192x2 --steps 4800 --lr 7e-4 --lr-final 1e-6 --warmup-steps 50 --ema 0.995 \
    --validate-every 400 --optimizer muon --loss psnr --compile
  export_last 2
}

denoise-gray() { # from the weights of color's run 1; here from those that ship
  gray() { train "$1" --task denoise-gray --sigma 0-55 --model IPTV2-Lite --data-path $photographs "${@:2}"; }
  gray 1 --init denoise-color --stages 0:64x8 500:128x4 --steps 1000 --lr 5e-4 --warmup-steps 50 --ema 0.99 --validate-every 1000
  gray 2 --init "$output/1" --stages 0:64x8 1500:128x4 2600:192x2 --steps 3200 --lr 5e-4 --warmup-steps 50 --ema 0.999 \
    --validate-every 800
  gray 3 --init "$output/2" --stages 0:128x4 300:192x2 --steps 700 --lr 3e-4 --warmup-steps 30 --ema 0.995 --validate-every 700
  gray 4 --init "$output/3" --stages 0:128x4 250:192x2 --steps 500 --lr 3e-4 --warmup-steps 30 --ema 0.995 --validate-every 500 \
    --loss psnr
  gray 5 --init "$output/4" --stages 0:128x4 1200:192x2 --steps 1600 --lr 7e-4 --lr-final 1e-6 --warmup-steps 50 --ema 0.995 \
    --validate-every 400 --optimizer muon --loss psnr --compile
  export_last 5
}

derain() { # by the test part only, afresh: the denoisers have seen the train part, whose photographs are rained on in Rain100H
  train 1 --task derain --degrade rain:0.02-0.3,quantize --model IPTV2-Lite --norm bias_free --data-path "$data/test" \
    --stages 0:64x16 1400:128x4 --steps 1800 --lr 1e-3 --lr-final 1e-6 --warmup-steps 50 --ema 0.995 --validate-every 200 \
    --optimizer muon --loss psnr --compile
  export_last 1
}

motion-deblur() { # from the weights of color's run 1, here from those that ship; shake had no tremor yet in
  # runs 1 to 13, and did not linger before run 20
  shaken() { # run, motion and its pixels, weights to start from, stages, steps, first and last rate, average, further flags
    train "$1" --task motion-deblur --norm bias_free --degrade "$2,awgn:1-2,quantize" --data-path $photographs --init "$3" \
      --stages "$4" --steps "$5" --lr "$6" --lr-final "$7" --ema "$8" --warmup-steps 50 --validate-every 200 "${@:9}"
  }
  pixels() { shaken "$@" --model IPTV2-Lite; }
  muon="--optimizer muon --loss l1+fft --compile"
  pixels 1 motion:9-31 denoise-color 0:128x4 3000 1e-3 1e-6 0.999 # ended at step 1,050
  pixels 2 motion:3-11 "$output/1" 0:64x16 900 1e-3 5e-4 0.99
  pixels 3 motion:5-19 "$output/2" 0:64x16 1200 1e-3 7e-4 0.99
  pixels 4 motion:5-27 "$output/3" 0:128x4 1400 1e-3 1e-6 0.995
  pixels 5 motion:3-15 "$output/4" 0:64x16 2400 1e-3 5e-4 0.99
  pixels 6 motion:5-27 "$output/5" 0:128x4 1900 7e-4 1e-6 0.995
  pixels 7 motion:3-15 "$output/6" 0:64x16 400 1e-3 5e-4 0.99 $muon
  pixels 8 motion:5-17 "$output/7" 0:96x7 3600 1.2e-3 5e-4 0.995 $muon  # ended at step 1,248
  pixels 9 motion:5-17 "$output/8" 0:128x4 300 1e-3 1e-4 0.99 $muon
  pixels 10 motion:5-19 "$output/9" 0:128x4 2400 1.2e-3 7e-4 0.995 $muon # ended at step 1,167
  pixels 11 motion:5-27 "$output/10" 0:128x4 2000 1e-3 5e-4 0.995 $muon  # ended at step 1,256
  squares="$muon --model IPTV2-Lite/2"
  shaken 12 motion:5-29 "$output/11" 0:128x12 1600 1e-3 1e-6 0.99 $squares
  shaken 13 motion:5-29 "$output/12" 0:128x12 800 1e-3 1e-6 0.99 $squares --loss psnr
  squares="$muon --model IPTV2-Lite+/2"
  shaken 14 motion:5-29 "$output/13" 0:256x4 4400 1e-3 3e-4 0.998 $squares # ended at step 1,001
  shaken 15 linear:5-29 "$output/14" 0:192x6 1200 1e-3 5e-4 0.99 $squares
  shaken 16 bent:5-29 "$output/15" 0:192x6 1200 1e-3 6e-4 0.99 $squares    # ended at step 770
  shaken 17 motion:5-29 "$output/16" 0:192x6 2000 1e-3 4e-4 0.995 $squares # ended at step 763
  shaken 18 motion:5-29 "$output/17" 0:192x6 1800 7e-4 1e-6 0.995 $squares --loss psnr
  shaken 19 motion:5-29 "$output/18" 0:192x6 9000 7e-4 1e-6 0.995 $squares --loss psnr
  shaken 20 motion:5-29 "$output/19" 0:192x6 19200 7e-4 1e-6 0.995 $squares --loss psnr --validate-every 600
  export_last 20
}

export_last() { # run
  iptv2-export --ckpt "$output/$1" --half --output "$output/$name.safetensors"
}

[[ $name =~ ^(emoji|denoise-color|denoise-gray|derain|motion-deblur)$ ]] || { echo "unknown NAME: $name" >&2; exit 2; }
"$name"
