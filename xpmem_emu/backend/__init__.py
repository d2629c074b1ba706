"""What a cluster can be made of: kernels in this process, processes of this host, containers. One
protocol for all three (`interface`), and the launchers that bring up, break and end the last two.
"""
