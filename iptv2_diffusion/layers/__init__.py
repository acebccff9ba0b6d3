"""Layers of IPT-V2 (Section 3). Feature maps are (B, C, H, W), best in channels-last memory."""
