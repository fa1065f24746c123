"""The page of `posezoo app` as a Space of the Hub: poses in photos and short films."""

from posezoo.app import serving

MODELS = ("vitpose_plus_s_256x192", "uniformer_s_256x192", "hrnet_xs_192x144.rendered")

if __name__ == "__main__":
    with serving(MODELS, host="0.0.0.0", port=7860) as page:
        page.block_thread()
